"""Copies of the data files of a checkpoint without code, for transformers to read.

Transformers may import a class, a kernel or a packer that a configuration names, from the folder
or from the Hub. It gets a temporary folder instead, which holds copies of data files and
configurations that name no code.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsity_report.files.filesystem import scratch
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_nesting, read_json

# Keys, at any depth, that name code or send transformers to other packages or files.
_CODE = {
    "auto_map", "attn_implementation", "_attn_implementation", "experts_implementation",
    "_experts_implementation", "quantization_config", "compression_config", "transformers_weights",
}  # fmt: skip
_CONFIGS = {"config.json", "tokenizer_config.json"}


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a configuration without the keys that name code.

    Raises
    ------
    ValueError
        The file is nested too deep or no JSON object, see :mod:`sparsity_report.untrusted.gates`.
    OSError
        The file cannot be read.
    """
    config = read_json(path, most=limits.CONFIG_BYTES, without=_CODE)
    check_nesting(config)
    return config


@contextmanager
def plain_folder(directory: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Return a temporary folder with copies of matching files of a folder, without code.

    Configurations other than those of the model and its tokenizer are left out, as are folders,
    links to devices and files larger than 256 MiB.
    """
    with scratch() as plain:
        for file in sorted({file for pattern in patterns for file in directory.glob(pattern)}):
            if not file.is_file() or file.stat().st_size > limits.TEXT_BYTES:
                continue
            if file.name in _CONFIGS:
                text = json.dumps(read_config_file(file))
                (plain / file.name).write_text(text, encoding="utf-8")
            elif not file.name.endswith("config.json"):
                shutil.copyfile(file, plain / file.name)
        yield plain
