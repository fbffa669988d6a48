"""Find a checkpoint on the Hugging Face Hub: fetch it, take the local copy, or leave it there."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path

from sparsity_report.errors import SparsityReportError
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.weights.sources.http_ranges import HubFile, refusal
from sparsity_report.weights.sources.tokenizer import FILES

_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[\w.-]{1,96})?")
# What says which model it is, and how its weights are packed.
_ABOUT = (
    "config.json",
    "adapter_config.json",
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
)
_FILES, _PICKLES = (".safetensors", ".gguf"), (".bin", ".pt", ".pth", ".ckpt")
# Names that a message has room for.
_LISTED = 12
# Files that are looked at side by side.
_AT_ONCE = 8
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
    revision: str | None = None,
    subfolder: str | None = None,
    file: str | None = None,
    allow_pickle: bool = False,
) -> tuple[Path, tuple[Phrase, ...]]:
    """Return the folder or file of a Hub model to open, and notes on where it comes from.

    Parameters
    ----------
    model : str
        Hub id, e.g. ``"facebook/opt-125m"``.
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
    subfolder, file = _place(model, subfolder, file)
    source = _Folder(model, revision, subfolder)
    if file:
        return source.fetch_file(file, allow_pickle), (source.file_note(file),)
    if path := source.fetch_safetensors():
        return path, ()
    if not source.pickles:
        return source.fetch_gguf()
    if (other := source.converted()) and (path := other.fetch_safetensors()):
        return path, (other.converted_note,)
    if allow_pickle:
        return source.download(source.pickles), ()
    raise SparsityReportError(
        f"{source.called} has no safetensors on the Hub or in the local cache; "
        "its pickles are opened only with allow_pickle=True (--allow-pickle)"
    )


@dataclass(frozen=True)
class Remote:
    """A model whose weights are left on the Hub.

    Attributes
    ----------
    folder : Path
        Where its configuration lies on this disk.
    files : tuple of HubFile
        Its safetensors, or all pieces of a GGUF model; none where no more than the configuration
        can be had.
    weight_map : mapping of str to str, optional
        The file that an index places each tensor in.
    notes : tuple of Phrase
        Where weights or structure come from.
    """

    folder: Path
    files: tuple[HubFile, ...] = ()
    weight_map: Mapping[str, str] | None = None
    notes: tuple[Phrase, ...] = ()


def find(
    model: str,
    *,
    values: bool,
    revision: str | None = None,
    subfolder: str | None = None,
    file: str | None = None,
) -> Remote:
    """Look at the weights of a Hub model without fetching them.

    Parameters
    ----------
    model, revision, subfolder, file
        As for :func:`fetch`.
    values : bool
        Without, the configuration of a model is enough where there are no safetensors or the Hub
        cannot be reached.

    Raises
    ------
    SparsityReportError
        As :func:`fetch` does, and where there is nothing to stream.
    """
    subfolder, file = _place(model, subfolder, file)
    try:
        source = _Folder(model, revision, subfolder)
        source.check_listed()
    except _UnreachableError:
        if values:
            raise
        return _configured(model, revision, subfolder, phrase("note.hub_unreachable"))
    names, weight_map = source.choose(file)
    notes = [source.file_note(file)] if file else []
    if not (names or file) and source.pickles and (other := source.converted()):
        source, notes = other, [other.converted_note]
        names, weight_map = other.choose()
    if not names and (file or not source.pickles):
        names = source.choose_gguf(file)
        notes = [source.file_note(name) for name in names[:1]]
    if not names:
        why = phrase("note.not_streamable", path=f"{source.called}/{file}".rstrip("/"))
        if values:
            raise SparsityReportError(
                f"{why}, and nothing else is streamed; load it without stream (--stream)"
            )
        return _configured(model, revision, subfolder, why)
    if values:
        notes.append(phrase("note.streamed", commit=source.commit))
    paths = [f"{subfolder}/{name}".lstrip("/") for name in names]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        files = pool.map(partial(HubFile.of, model, source.commit), paths)
        return Remote(source.folder, tuple(files), weight_map, tuple(notes))


def _place(model: str, subfolder: str | None, file: str | None) -> tuple[str, str]:
    """Return folder and name of what to open, which may be named in one."""
    inner, _, file = (file or "").rpartition("/")
    subfolder = "/".join(filter(None, [subfolder, inner])).strip("/")
    if ".." in subfolder.split("/"):
        raise SparsityReportError(f"{subfolder!r} is no folder inside {model}")
    return subfolder, file


def _configured(model: str, revision: str | None, subfolder: str, why: Phrase) -> Remote:
    """Return a model of which no more than the configuration can be had."""
    name = f"{subfolder}/config.json".lstrip("/")
    path = _download(model, revision, [escape(name)])
    if not (path / name).is_file():
        raise SparsityReportError(
            f"{model} has no {name}, so its structure is not known without its values ({why}); "
            "open it with them"
        )
    return Remote(path / subfolder, notes=(why,))


class _Folder:
    """A folder of a repository, as it was when it was first looked at."""

    def __init__(self, model: str, revision: str | None, subfolder: str) -> None:
        from huggingface_hub import HfApi

        self.model, self.revision, self.subfolder = model, revision, subfolder
        self.called = f"{model}/{subfolder}".rstrip("/")
        self.converted_note = phrase(
            "note.converted_weights", author=_CONVERTER, revision=f"{model}@{revision}"
        )
        root = _download(model, revision, self._patterns(_ABOUT))
        # A snapshot's folder is called by its commit; the branch may move on.
        self.commit, self.folder = root.name, root / subfolder
        self.trouble: Exception | None = None
        try:
            names = HfApi().list_repo_files(model, revision=self.commit)
        except Exception as error:  # no network shows as many different exceptions
            self.trouble, names = error, _cached(root)
        prefix = f"{subfolder}/".lstrip("/")
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        self.names = sorted(name for name in inside if "/" not in name)
        self.deeper = sorted({f.rpartition("/")[0] for f in inside if f.endswith(_FILES)} - {""})
        self.pickles = [name for name in self.names if fnmatch(name, "pytorch_model*.bin")]

    def file_note(self, file: str) -> Phrase:
        """Return a note that names the file that the weights come from."""
        return phrase("note.weights_file", file=file, folder=self.called)

    def check_listed(self) -> None:
        """Refuse a repository of which the Hub has not told the files."""
        if self.trouble is not None:
            raise refusal(self.trouble, self.model, self.revision) or _UnreachableError(
                f"{self.model} cannot be read from the Hub ({type(self.trouble).__name__}); "
                "try again, or load the local copy without stream"
            ) from self.trouble

    def download(self, names: Collection[str]) -> Path:
        """Fetch files by their exact names, and what belongs to the tokenizer."""
        around = [name for name in self.names if any(fnmatch(name, each) for each in FILES)]
        return self._fetch([*names, *around])

    def converted(self) -> _Folder | None:
        """Return the same in safetensors, as the Hub offers it for what holds pickles only."""
        reference = _conversion(self.model) if self.revision is None else None
        return _Folder(self.model, reference, self.subfolder) if reference else None

    def fetch_file(self, name: str, allow_pickle: bool) -> Path:
        """Fetch one file, or all pieces of the model that it is one of."""
        self._check_file(name)
        if not (name.endswith(_FILES) or allow_pickle):
            raise SparsityReportError(
                f"{name} of {self.called} is no .safetensors or .gguf file; if it is a PyTorch "
                "pickle, it is opened only with allow_pickle=True (--allow-pickle)"
            )
        return self.download(self._pieces(name)) / name

    def fetch_safetensors(self) -> Path | None:
        """Fetch the safetensors of a model, those that its index names if it has one."""
        from sparsity_report.weights.sources.safetensors import INDEX, SINGLE

        names, weight_map = self.choose()
        if weight_map is not None:
            return self.download([INDEX, *names])
        if not names:
            return None
        folder = self.download(names)
        return folder if names == [SINGLE] else folder / names[0]

    def choose(self, file: str = "") -> tuple[list[str], Mapping[str, str] | None]:
        """Return the safetensors of a model, or the one that is named, and what an index says."""
        from sparsity_report.weights.sources.safetensors import INDEX, SINGLE, read_index

        if file:
            self._check_file(file)
            return [file] if file.endswith(".safetensors") else [], None
        if INDEX in self.names:
            weight_map = read_index(self._fetch([INDEX]) / INDEX)
            shards = sorted(set(weight_map.values()))
            if SINGLE in self.names and SINGLE not in shards:
                raise SparsityReportError(
                    f"{self.called} has {SINGLE}, and its {INDEX} names other files; which ones "
                    f"count? For the first, say file={SINGLE} (--file)"
                )
            return shards, weight_map
        files = [name for name in self.names if name.endswith(".safetensors")]
        if SINGLE in files:
            return [SINGLE], None
        if len(files) > 1:
            raise self._several(files)
        return files, None

    def fetch_gguf(self) -> tuple[Path, tuple[Phrase, ...]]:
        """Fetch the one GGUF model of a folder."""
        if not (pieces := self.choose_gguf()):
            deeper = f"; name a folder of it with subfolder=: {_some(self.deeper)}"
            raise SparsityReportError(
                f"{self.called} has no safetensors, GGUF or pytorch_model.bin on the Hub or in the "
                f"local cache{deeper if self.deeper else ''}"
            )
        return self.download(pieces) / pieces[0], (self.file_note(pieces[0]),)

    def choose_gguf(self, file: str = "") -> list[str]:
        """Return the pieces of the one GGUF model of a folder, or of the one that is named."""
        from sparsity_report.weights.gguf.gguf_shards import model_names

        models = [file] if file else model_names(self.names)
        if len(models) > 1:
            raise self._several(models)
        return self._pieces(models[0]) if models and models[0].endswith(".gguf") else []

    def _pieces(self, name: str) -> list[str]:
        """Return the names of all pieces of the model that a file is one of."""
        from sparsity_report.weights.gguf.gguf_shards import piece_names

        pieces = piece_names(name)
        if missing := [piece for piece in pieces if piece not in self.names]:
            raise SparsityReportError(
                f"{self.called} has no {missing[0]}, one of {len(pieces)} pieces of a model, on "
                "the Hub or in the local cache; ask its owner for it"
            )
        return pieces

    def _check_file(self, name: str) -> None:
        if name not in self.names:
            raise SparsityReportError(
                f"{self.called} has no file {name!r} on the Hub or in the local cache; "
                f"it has {_some(self._weights())}"
            )

    def _fetch(self, names: Collection[str]) -> Path:
        _download(self.model, self.commit, self._patterns([*names, *_ABOUT]))
        return self.folder

    def _patterns(self, names: Collection[str]) -> list[str]:
        return [escape(f"{self.subfolder}/{name}".lstrip("/")) for name in names]

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


class _UnreachableError(SparsityReportError):
    """The Hub cannot be reached."""


def _cached(snapshot: Path) -> list[str]:
    files = (file for file in snapshot.rglob("*") if file.is_file())
    return [file.relative_to(snapshot).as_posix() for file in files]


def _download(model: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except Exception as error:  # no network shows as many different exceptions
        raise refusal(error, model, revision) or _UnreachableError(
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
