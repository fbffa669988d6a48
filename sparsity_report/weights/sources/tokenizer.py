"""The tokenizer of a checkpoint, opened without running its code, and the gate to every use of one.

Tokenizers are written in Rust. A panic is no Exception, and Rust prints it on file descriptor 2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from threading import RLock
from typing import TYPE_CHECKING, Any

from sparsity_report.errors import explained, printable
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import read_json
from sparsity_report.weights.anatomy.meta_model import plain_folder
from sparsity_report.weights.sources.model_paths import TOKENIZER_FILES
from sparsity_report.weights.weights import Tokenizer

if TYPE_CHECKING:
    import torch

# Files that are a complete vocabulary for every class of tokenizers.
_COMPLETE = ("tokenizer.json", "tekken.json", "tokenizer.model", "tiktoken.model")
# Ends of names of other files that match.
_NO_VOCABULARY = ("config.json", ".index.json")
# File descriptor 2 belongs to all threads.
_redirecting = RLock()


def open_tokenizer(directory: Path, gguf: Path | None) -> Tokenizer:
    """Open the tokenizer of a folder or of a GGUF file with transformers.

    Raises
    ------
    SparsityReportError
        There is no tokenizer, it is damaged, or it needs code of the folder.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    options = {} if gguf is None else {"gguf_file": str(gguf.absolute())}

    def explain(reason: str) -> str:
        return (
            f"{directory} has no tokenizer that opens ({reason}); put the tokenizer's files there, "
            "or pass tokenizer= in Python"
        )

    with _gate(explain):
        if gguf is None:
            _check_class(directory)
        with plain_folder(directory, TOKENIZER_FILES) as plain:
            if gguf is None and all(file.name.endswith(_NO_VOCABULARY) for file in plain.iterdir()):
                raise ValueError(f"there is no {_COMPLETE[0]}")
            tokenizer = AutoTokenizer.from_pretrained(
                plain, local_files_only=True, trust_remote_code=False, **options
            )
            if not isinstance(tokenizer, PreTrainedTokenizerBase):
                raise ValueError(f"{type(tokenizer).__name__} is not a tokenizer")
            if not isinstance(tokenizer.model_max_length, int | float):
                raise ValueError(f"model_max_length is {tokenizer.model_max_length!r}")
            if gguf is None:
                _check_files(plain, type(tokenizer))
    tokenizer.name_or_path = str(directory)
    opened: Tokenizer = tokenizer
    return opened


def encode(tokenizer: Tokenizer, text: str, name: str) -> torch.Tensor:
    """Return the token ids of a text as a 1-d tensor; `name` is that of the model.

    Raises
    ------
    SparsityReportError
        The tokenizer fails on the text.
    """
    with _gate(lambda e: f"{name}: the tokenizer cannot read the text ({e}); replace its files"):
        ids: torch.Tensor = tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][0]
        return ids


def decode(tokenizer: Tokenizer, ids: Sequence[int], name: str) -> str:
    """Return the text of token ids without special tokens; `name` is that of the model.

    Raises
    ------
    SparsityReportError
        The tokenizer fails on the ids.
    """
    with _gate(lambda e: f"{name}: the tokenizer cannot write a text ({e}); replace its files"):
        return str(tokenizer.decode(ids, skip_special_tokens=True))


@contextmanager
def _gate(explain: Callable[[str], str]) -> Iterator[None]:
    """Turn all that a tokenizer raises, panics included, into one line, and print no panic."""

    def line(error: Exception) -> str:
        return explain(printable(" ".join(str(error).split()), 300))

    # Tokenizers raise many exceptions.
    with explained(line, Exception), _redirecting, TemporaryFile(buffering=0) as output:
        terminal = os.dup(2)
        os.dup2(output.fileno(), 2)
        try:
            yield
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            output.truncate(0)
            raise RuntimeError(str(error)) from error
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            output.seek(0)
            os.write(2, output.read())


def _check_class(directory: Path) -> None:
    """Refuse a tokenizer whose class exists only as code of the folder."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    file = directory / "tokenizer_config.json"
    if not file.is_file() or (directory / "tokenizer.json").is_file():
        return
    config = read_json(file, most=limits.CONFIG_BYTES)
    code = config.get("auto_map") or ()
    code = (code.get("AutoTokenizer") or ()) if isinstance(code, dict) else code
    names = config.get("tokenizer_class"), *([code] if isinstance(code, str) else code)
    # Code of the folder is named "file.Class", code of the Hub "owner/name--file.Class".
    classes = [str(name).rpartition(".")[2] for name in names if name]
    if code and not any(map(tokenizer_class_from_name, classes)):
        raise ValueError(
            f"transformers has no {classes[0]}, there is no tokenizer.json, and code of a "
            "checkpoint is not run"
        )


def _check_files(plain: Path, kind: Any) -> None:
    """Refuse a missing vocabulary, for which transformers makes an empty tokenizer."""
    names = kind.vocab_files_names
    parts = [names[key] for key in ("vocab_file", "merges_file") if key in names]
    needed = parts or ([_COMPLETE[0]] if "tokenizer_file" in names else [])
    if any((plain / name).is_file() for name in _COMPLETE):
        return
    if not all((plain / name).is_file() for name in needed):
        raise ValueError(f"a {kind.__name__} needs {' and '.join(needed)}, or {_COMPLETE[0]}")
