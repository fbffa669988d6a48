"""The tokenizer that came with a checkpoint, opened from its data alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError, printable, without_panics
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import read_json
from sparsity_report.weights.sources.data_files import plain_folder

#: What a tokenizer may be made of, of the files in its folder.
FILES = ("*.json", "*.txt", "*.model", "*.model.*", "*.spm", "*.codes", "*.tokenizer")
# Each is a whole vocabulary to any class of tokenizers; other files are so to some classes only.
_WHOLE = ("tokenizer.json", "tekken.json", "tokenizer.model", "tiktoken.model")


def open_tokenizer(directory: Path, gguf: Path | None = None) -> Any:
    """Open the tokenizer of a folder, or inside a GGUF file, as transformers does without its code.

    Raises
    ------
    SparsityReportError
        Nothing there opens, or only Python of the folder could.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    inside = {} if gguf is None else {"gguf_file": str(gguf.absolute())}
    try:
        if gguf is None:
            _check_class(directory)
        with plain_folder(directory, FILES) as plain, without_panics():
            tokenizer = AutoTokenizer.from_pretrained(
                plain, local_files_only=True, trust_remote_code=False, **inside
            )
            if not isinstance(tokenizer, PreTrainedTokenizerBase):
                raise ValueError(f"{type(tokenizer).__name__} is no tokenizer")
            if not isinstance(tokenizer.model_max_length, int | float):
                raise ValueError(f"model_max_length is {tokenizer.model_max_length!r}")
            if gguf is None:
                _check_files(plain, type(tokenizer))
    except Exception as error:  # each tokenizer fails in its own way
        raise SparsityReportError(
            f"{directory} has no tokenizer that opens ({printable(str(error), 300).strip()}); "
            "pass tokenizer="
        ) from error
    tokenizer.name_or_path = str(directory)
    return tokenizer


def _check_class(directory: Path) -> None:
    """Refuse a tokenizer that only the Python of its folder understands."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    file = directory / "tokenizer_config.json"
    if not file.is_file() or (directory / "tokenizer.json").is_file():
        return
    told = read_json(file, most=limits.CONFIG_BYTES)
    code = told.get("auto_map") or ()
    code = (code.get("AutoTokenizer") or ()) if isinstance(code, dict) else code
    named = [code] if isinstance(code, str) else code
    # Of a folder's code it is "file.Class", of the Hub's "owner/name--file.Class".
    classes = [
        str(name).rpartition(".")[2] for name in (told.get("tokenizer_class"), *named) if name
    ]
    if code and not any(map(tokenizer_class_from_name, classes)):
        raise ValueError(
            f"transformers does not know {classes[0]}, there is no tokenizer.json, and code of a "
            "checkpoint is not run"
        )


def _check_files(plain: Path, kind: Any) -> None:
    """Refuse a tokenizer without its vocabulary: of no file transformers makes an empty one."""
    names = kind.vocab_files_names
    parts = [names[key] for key in ("vocab_file", "merges_file") if key in names]
    needed = parts or ([_WHOLE[0]] if "tokenizer_file" in names else [])
    if any((plain / name).is_file() for name in _WHOLE):
        return
    if not all((plain / name).is_file() for name in needed):
        raise ValueError(f"a {kind.__name__} needs {' and '.join(needed)}, or {_WHOLE[0]}")
