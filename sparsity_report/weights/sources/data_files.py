"""The data of a checkpoint without its code: what transformers may read, and nothing it could run.

Wherever a configuration names a class, a kernel or a packer, transformers may import it from the
folder or from the Hub. So it is shown, for a while, a folder that holds copies of data files only,
with configurations that name no code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsity_report.files.filesystem import scratch
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_nesting, read_json

# Keys that name code, at any depth, and those that send transformers to other packages or files:
# weights are decoded here, and the files that are run are those that are counted.
_CODE = {
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
    "quantization_config",
    "compression_config",
    "transformers_weights",
}
_CONFIGS = {"config.json", "tokenizer_config.json"}


def read_config_file(path: Path) -> Any:
    """Read a configuration without the keys that name code.

    Raises
    ------
    ValueError
        It is no JSON, see :mod:`sparsity_report.untrusted.gates`, or nested too deep.
    OSError
        It cannot be read.
    """
    told = read_json(path, most=limits.CONFIG_BYTES, without=_CODE)
    check_nesting(told)
    return told


@contextmanager
def plain_folder(directory: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Show copies of the files of a folder that match, without what could be run, for a while.

    Of several configurations only those of the model and its tokenizer are there. Files beyond
    256 MiB, links to devices and folders are left out.
    """
    with scratch() as plain:
        for file in sorted({file for pattern in patterns for file in directory.glob(pattern)}):
            if not file.is_file() or file.stat().st_size > limits.TEXT_BYTES:
                continue
            if file.name in _CONFIGS:
                told = json.dumps(read_config_file(file))
                (plain / file.name).write_text(told, encoding="utf-8")
            elif not file.name.endswith("config.json"):
                shutil.copyfile(file, plain / file.name)
        yield plain
