"""Local paths of models, distinguished from Hub ids without loading any library."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from sparsity_report.errors import SparsityReportError, opening

# Files that transformers looks for in a folder, in this order.
DEFAULTS = {
    "model.safetensors": "safetensors", "model.safetensors.index.json": "safetensors",
    "pytorch_model.bin": "pickle", "pytorch_model.bin.index.json": "pickle",
}  # fmt: skip
#: Patterns of the files that a tokenizer may consist of.
TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.model.*", "*.spm", "*.codes", "*.tokenizer")
_STEMS = {name.partition(".")[0] for name in DEFAULTS}
_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[\w.-]{1,96})?")
_PLACE = re.compile(
    rf"(?:hf://(?:models/)?)?(?P<model>(?>{_ID.pattern}))"
    r"(?:@(?P<revision>refs/pr/\d+|refs/convert/[\w.-]+|[^/\x00-\x1f]+))?"
    r"(?P<path>(?:/[^/\x00-\x1f]+)*)"
)
#: Ends of names of files that are read by ranges, and of PyTorch pickles.
STREAMED, PICKLES = (".safetensors", ".gguf"), (".bin", ".pt", ".pth", ".ckpt")


def is_hub_id(text: str) -> bool:
    """Return True for a text in the form of a Hub model id.

    Examples
    --------
    >>> is_hub_id("facebook/opt-125m"), is_hub_id("gpt2"), is_hub_id("./gpt2"), is_hub_id("a/b/c")
    (True, True, False, False)
    """
    return bool(_ID.fullmatch(text))


@dataclass(frozen=True)
class HubPlace:
    """Parts of a Hub name: the model, a revision, and a folder and a file of it."""

    model: str
    revision: str | None = None
    folder: str = ""
    file: str = ""


def hub_place(text: str) -> HubPlace | None:
    """Return the parts of a Hub name; None for another text.

    Names are those of the command ``hf``: ``owner/name@revision/path``, with or without ``hf://``.
    A revision writes ``/`` as ``%2F``, except ``refs/pr/1`` and ``refs/convert/parquet``.

    Examples
    --------
    >>> hub_place("facebook/opt-125m@refs/pr/9/fp16")
    HubPlace(model='facebook/opt-125m', revision='refs/pr/9', folder='fp16', file='')
    >>> hub_place("hf://org/model-GGUF/model-Q4_K_M.gguf").file, hub_place("./gpt2")
    ('model-Q4_K_M.gguf', None)
    """
    match = _PLACE.fullmatch(text)
    if match is None:
        return None
    model, revision, path = match["model"], match["revision"], match["path"][1:]
    is_file = path.endswith((*STREAMED, *PICKLES))
    folder, _, file = path.rpartition("/") if is_file else (path, "", "")
    return HubPlace(model, revision and unquote(revision), folder, file)


def hub_id(folder: Path) -> str | None:
    """Return the id of a model in the cache of the Hub; None for another folder.

    Examples
    --------
    >>> hub_id(Path("/cache/models--facebook--opt-125m/snapshots/27dcfa7")), hub_id(Path("/m"))
    ('facebook/opt-125m', None)
    """
    names = [part for part in folder.absolute().parts if part.startswith("models--")]
    return names[-1].removeprefix("models--").replace("--", "/") if names else None


def distinctive_name(path: Path) -> str:
    """Return the last part of a path, with its folder if it is the stem of a default file.

    Examples
    --------
    >>> distinctive_name(Path("/m/opt-125m")), distinctive_name(Path("/m/minilm/model"))
    ('opt-125m', 'minilm/model')
    """
    is_default = path.name.partition(".")[0] in _STEMS
    return f"{path.parent.name}/{path.name}".lstrip("/") if is_default else path.name


def find_model(model: str) -> Path | HubPlace:
    """Return the local path of a model, or its place on the Hub.

    Raises
    ------
    SparsityReportError
        Nothing is there.
    """
    if (path := Path(model)).exists():
        return path
    # The name of a weight file alone is no Hub id.
    if (place := hub_place(model)) and not place.model.endswith((*STREAMED, *PICKLES)):
        return place
    raise SparsityReportError(f"{model}: no such file or directory; give a path or a Hub id")


def is_imatrix(text: object) -> bool:
    """Return whether a text is the path of an imatrix, by its first bytes.

    Older files begin with the number of entries, and the first name with its length.
    """
    if not isinstance(text, str | Path) or not os.path.isfile(text):  # noqa: PTH113 - never raise
        return False
    with opening(Path(text), "imatrix"), Path(text).open("rb") as file:
        head = file.read(12)
    return head.startswith(b"GGUF") or (head[8:] == b"blk." and head[7] == 0)
