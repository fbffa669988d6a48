"""The tokenizer of a checkpoint, opened without running its code."""

from pathlib import Path
from typing import Any

from sparsity_report.errors import explained, printable, without_panics
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import read_json
from sparsity_report.weights.anatomy.meta_model import plain_folder

#: Patterns of the files that a tokenizer may consist of.
FILES = ("*.json", "*.txt", "*.model", "*.model.*", "*.spm", "*.codes", "*.tokenizer")
# Files that are a complete vocabulary for every class of tokenizers.
_COMPLETE = ("tokenizer.json", "tekken.json", "tokenizer.model", "tiktoken.model")


def open_tokenizer(directory: Path, gguf: Path | None = None) -> Any:
    """Open the tokenizer of a folder or of a GGUF file with transformers.

    Raises
    ------
    SparsityReportError
        There is no tokenizer, it is damaged, or it needs code of the folder.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    options = {} if gguf is None else {"gguf_file": str(gguf.absolute())}

    def explain(error: Exception) -> str:
        reason = printable(str(error), 300).strip()
        return f"{directory} has no tokenizer that opens ({reason}); pass tokenizer="

    # Tokenizers raise many exceptions.
    with explained(explain, Exception):
        if gguf is None:
            _check_class(directory)
        with plain_folder(directory, FILES) as plain, without_panics():
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
    return tokenizer


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
