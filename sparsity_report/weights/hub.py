"""Fetch a checkpoint from the Hugging Face Hub, or find the copy in the local cache."""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatch
from glob import escape
from pathlib import Path

from sparsity_report.errors import SparsityReportError

_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[\w.-]{1,96})?")
_AROUND = [
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
]
_FILES, _PICKLES = (".safetensors", ".gguf"), (".bin", ".pt", ".pth", ".ckpt")
# Names that a message has room for.
_LISTED = 12
# Hugging Face's bot offers safetensors for repositories that hold pickles only.
_CONVERTER = "SFconvertbot"


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a Hub model id.

    Examples
    --------
    >>> is_hub_id("facebook/opt-125m"), is_hub_id("gpt2"), is_hub_id("./gpt2"), is_hub_id("a/b/c")
    (True, True, False, False)
    """
    return bool(_ID.fullmatch(text))


def fetch(
    model: str,
    *,
    values: bool,
    revision: str | None = None,
    subfolder: str | None = None,
    file: str | None = None,
    allow_pickle: bool = False,
) -> tuple[Path, tuple[str, ...]]:
    """Return the folder or file of a Hub model to open, and notes on where it comes from.

    Parameters
    ----------
    model : str
        Hub id, e.g. ``"facebook/opt-125m"``.
    values : bool
        Without, only ``config.json`` is fetched, a few kilobytes.
    revision : str, optional
        Branch, tag or commit.
    subfolder, file : str, optional
        Which of the repository's folders, and which file of it, if it is not clear.
    allow_pickle : bool
        Fetch ``pytorch_model*.bin`` where there are no safetensors.

    Raises
    ------
    SparsityReportError
        When the model does not exist, is gated, or cannot be reached and is not cached; when it
        has several, and none is named.
    """
    inner, _, file = (file or "").rpartition("/")
    subfolder = "/".join(filter(None, [subfolder, inner])).strip("/")
    if ".." in subfolder.split("/"):
        raise SparsityReportError(f"{subfolder!r} is no folder inside {model}")
    if not values:
        return _fetch_config(model, revision, subfolder), ()
    source = _Folder(model, revision, subfolder)
    if file:
        return source.fetch_file(file, allow_pickle), (f"weights from {file} of {source.called}",)
    if path := source.fetch_safetensors():
        return path, ()
    if not source.pickles:
        return source.fetch_gguf()
    reference = _conversion(model) if revision is None else None
    if reference and (path := _Folder(model, reference, subfolder).fetch_safetensors()):
        return path, (f"weights from {_CONVERTER}'s safetensors, {model}@{reference}",)
    if allow_pickle:
        return source.download(source.pickles), ()
    raise SparsityReportError(
        f"{source.called} has no safetensors on the Hub or in the local cache; "
        "its pickles are opened only with allow_pickle=True (--allow-pickle)"
    )


def _fetch_config(model: str, revision: str | None, subfolder: str) -> Path:
    name = f"{subfolder}/config.json".lstrip("/")
    path = _download(model, revision, [escape(name)])
    if not (path / name).is_file():
        raise SparsityReportError(
            f"{model} has no {name}, so its structure is not known without its values; "
            "open it with them"
        )
    return path / subfolder


class _Folder:
    """A folder of a repository, as it was when it was first looked at."""

    def __init__(self, model: str, revision: str | None, subfolder: str) -> None:
        self.model, self.subfolder = model, subfolder
        self.called = f"{model}/{subfolder}".rstrip("/")
        root = _download(model, revision, self._patterns(_AROUND))
        # A snapshot's folder is called by its commit; the branch may move on.
        self.commit = root.name
        names = _listing(model, root)
        prefix = f"{subfolder}/".lstrip("/")
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        self.names = sorted(name for name in inside if "/" not in name)
        self.deeper = sorted({f.rpartition("/")[0] for f in inside if f.endswith(_FILES)} - {""})
        self.pickles = [name for name in self.names if fnmatch(name, "pytorch_model*.bin")]

    def download(self, names: Collection[str]) -> Path:
        """Fetch files by their exact names."""
        patterns = self._patterns([*map(escape, names), *_AROUND])
        return _download(self.model, self.commit, patterns) / self.subfolder

    def fetch_file(self, name: str, allow_pickle: bool) -> Path:
        """Fetch one file, or all pieces of the model that it is one of."""
        if name not in self.names:
            raise SparsityReportError(
                f"{self.called} has no file {name!r} on the Hub or in the local cache; "
                f"it has {_some(self._weights())}"
            )
        if not (name.endswith(_FILES) or allow_pickle):
            raise SparsityReportError(
                f"{name} of {self.called} is no .safetensors or .gguf file; if it is a PyTorch "
                "pickle, it is opened only with allow_pickle=True (--allow-pickle)"
            )
        return self._download_pieces(name)

    def fetch_safetensors(self) -> Path | None:
        """Fetch the safetensors of a model, those that its index names if it has one."""
        from sparsity_report.weights.safetensors import INDEX, SINGLE, read_index

        if INDEX in self.names:
            shards = set(read_index(self.download([INDEX]) / INDEX).values())
            if SINGLE in self.names and SINGLE not in shards:
                raise SparsityReportError(
                    f"{self.called} has {SINGLE}, and its {INDEX} names other files; which ones "
                    f"count? For the first, say file={SINGLE} (--file)"
                )
            return self.download({INDEX, *shards})
        files = [name for name in self.names if name.endswith(".safetensors")]
        if SINGLE in files:
            return self.download([SINGLE])
        if len(files) > 1:
            raise self._several(files)
        return self.download(files) / files[0] if files else None

    def fetch_gguf(self) -> tuple[Path, tuple[str, ...]]:
        """Fetch the one GGUF model of a folder."""
        from sparsity_report.weights.gguf_pieces import model_names

        models = model_names(self.names)
        if len(models) > 1:
            raise self._several(models)
        if not models:
            deeper = f"; name a folder of it with subfolder=: {_some(self.deeper)}"
            raise SparsityReportError(
                f"{self.called} has no safetensors, GGUF or pytorch_model.bin on the Hub or in the "
                f"local cache{deeper if self.deeper else ''}"
            )
        note = f"weights from {models[0]} of {self.called}"
        return self._download_pieces(models[0]), (note,)

    def _download_pieces(self, name: str) -> Path:
        from sparsity_report.weights.gguf_pieces import piece_names

        pieces = piece_names(name)
        if missing := [piece for piece in pieces if piece not in self.names]:
            raise SparsityReportError(
                f"{self.called} has no {missing[0]}, one of {len(pieces)} pieces of a model, on "
                "the Hub or in the local cache; ask its owner for it"
            )
        return self.download(pieces) / name

    def _patterns(self, patterns: Collection[str]) -> list[str]:
        return [f"{escape(self.subfolder)}/{pattern}".lstrip("/") for pattern in patterns]

    def _weights(self) -> list[str]:
        return [name for name in self.names if name.endswith((*_FILES, *_PICKLES))]

    def _several(self, names: Collection[str]) -> SparsityReportError:
        return SparsityReportError(
            f"{self.called} has {len(names)} models; name the file of one with file= (--file): "
            f"{_some(names)}"
        )


def _some(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:_LISTED])
    return first + f" and {len(names) - _LISTED} more" * (len(names) > _LISTED) or "none"


def _listing(model: str, snapshot: Path) -> list[str]:
    """Return the files of a repository; where the Hub cannot be reached, those in the cache."""
    from huggingface_hub import HfApi

    try:
        return HfApi().list_repo_files(model, revision=snapshot.name)
    except Exception:  # no network shows as many different exceptions
        files = (file for file in snapshot.rglob("*") if file.is_file())
        return [file.relative_to(snapshot).as_posix() for file in files]


def _download(model: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise SparsityReportError(
            f"{model} is gated: accept its terms on its Hub page and run `hf auth login`"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        what = model if revision is None else f"{model} at revision {revision}"
        raise SparsityReportError(
            f"{what} is neither a local path nor a model on the Hub; "
            "if it is private, run `hf auth login`"
        ) from error
    except Exception as error:  # no network shows as many different exceptions
        raise SparsityReportError(
            f"{model} is not a local path, is not in the local Hub cache, and the Hub cannot be "
            f"reached ({type(error).__name__}); on a connected machine run `hf download {model}`, "
            "or give the path of a local copy"
        ) from error


def _conversion(model: str) -> str | None:
    from huggingface_hub import HfApi

    try:
        discussions = HfApi().get_repo_discussions(
            model, author=_CONVERTER, discussion_type="pull_request", discussion_status="open"
        )
        return next((d.git_reference for d in discussions if "safetensors" in d.title), None)
    except Exception:  # offline, or discussions turned off: there is simply no conversion to use
        return None
