"""Checkpoints on the Hugging Face Hub: downloaded, taken from the local cache, or streamed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.packed.quantization_config import SETTINGS_BESIDE
from sparsity_report.weights.sources.gguf_files import shard_names
from sparsity_report.weights.sources.http_ranges import HubFile, refusal
from sparsity_report.weights.sources.model_files import (
    check_allowed,
    choose_model,
    listed,
    read_in_parallel,
)
from sparsity_report.weights.sources.model_paths import PICKLES, STREAMED, TOKENIZER_FILES, HubPlace
from sparsity_report.weights.sources.safetensors import SINGLE, index_name
from sparsity_report.words.sentences import say

# Files that describe the model and how its weights are packed.
_CONFIGS = ("config.json", "adapter_config.json", *SETTINGS_BESIDE)


def fetch(place: HubPlace, *, allow_pickle: bool) -> tuple[Path, tuple[str, ...]]:
    """Download a Hub model; return its local folder or file, and notes on its origin.

    Without safetensors and GGUF, ``pytorch_model*.bin`` are downloaded where pickles are allowed.

    Raises
    ------
    SparsityReportError
        The model does not exist, is gated, or is neither cached nor reachable; or the repository
        holds several models and none is named.
    """
    source = _Folder(place)
    kind, names, weight_map = source.select(place.file)
    if not names:
        deeper = listed([f"{source.path}/{each}" for each in source.deeper])
        raise SparsityReportError(
            f"{source.path} has no safetensors, GGUF or pytorch_model.bin on the Hub or in the "
            f"local cache{f'; name a folder of it: {deeper}' if deeper else ''}"
        )
    if kind == "pickle":
        check_allowed(Path(source.path, names[0]), allow_pickle)
    source.download(names)
    return source.local(place.file, names, weight_map), source.notes(place.file, kind, names)


@dataclass(frozen=True)
class Remote:
    """A model whose weights stay on the Hub.

    Attributes
    ----------
    folder : Path
        Local folder of its configuration.
    files : tuple of HubFile
        Its safetensors, or all shards of a GGUF model.
    weight_map : mapping of str to str, optional
        File of each tensor, from the index.
    notes : tuple of str
        Origin of the weights.
    """

    folder: Path
    files: tuple[HubFile, ...]
    weight_map: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


def find(place: HubPlace, or_copy: bool, allow_pickle: bool) -> Remote | Path:
    """Look up the weight files of a Hub model without downloading them.

    Parameters
    ----------
    place : HubPlace
    or_copy : bool
        Return the path of a copy if the Hub cannot be reached, or if its files are pickles.
    allow_pickle : bool
        Whether a copy may be of pickles.

    Raises
    ------
    SparsityReportError
        The Hub cannot be reached, it has neither safetensors nor GGUF files, or as :func:`fetch`.
    """
    source = _Folder(place)
    if not or_copy:
        source.check_listed()
    kind, names, weight_map = source.select(place.file)
    if kind == "pickle" and or_copy and allow_pickle:
        return fetch(place, allow_pickle=True)[0]
    if kind == "pickle":
        source.check_listed()
        path = f"{source.path}/{place.file}".rstrip("/")
        raise SparsityReportError(
            f"{path} is neither safetensors nor GGUF on the Hub, and nothing else is streamed; "
            "give such files, or a local copy"
        )
    if source.list_error:
        return source.local(place.file, names, weight_map)
    paths = [f"{place.folder}/{name}".lstrip("/") for name in names]
    files = read_in_parallel(paths, partial(HubFile.look_up, place.model, source.commit)).values()
    return Remote(source.folder, (*files,), weight_map, source.notes(place.file, kind, names))


class _Folder:
    """A folder of a repository, pinned to the commit that was current on construction."""

    def __init__(self, place: HubPlace) -> None:
        from huggingface_hub import HfApi

        model, revision, subfolder = place.model, place.revision, place.folder
        if ".." in subfolder.split("/"):
            raise SparsityReportError(
                f"{subfolder!r} is not a folder inside {model}; name one without .."
            )
        self.model, self.revision, self.subfolder = model, revision, subfolder
        self.path = f"{model}/{subfolder}".rstrip("/")
        root = _download(model, revision, self._patterns(_CONFIGS))
        # The folder of a snapshot has its commit as name; the branch may move on.
        self.commit, self.folder = root.name, root / subfolder
        #: Reason why the Hub listed no files; those are of the local cache then.
        self.list_error: Exception | None = None
        try:
            names = HfApi().list_repo_files(model, revision=self.commit)
        except Exception as error:  # a missing network raises many exceptions
            files = (file for file in root.rglob("*") if file.is_file())
            self.list_error, names = error, [file.relative_to(root).as_posix() for file in files]
        prefix = f"{subfolder}/".lstrip("/")
        paths = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        self.names = sorted(name for name in paths if "/" not in name)
        self.deeper = sorted({f.rpartition("/")[0] for f in paths if f.endswith(STREAMED)} - {""})

    def check_listed(self) -> None:
        """Refuse a repository whose files the Hub did not list."""
        if (error := self.list_error) is not None:
            raise refusal(error, self.model, self.revision) or SparsityReportError(
                f"{self.model} cannot be read from the Hub ({type(error).__name__}); "
                "try again, or load the local copy without stream"
            ) from error

    def select(self, file: str) -> tuple[str, list[str], Mapping[str, str] | None]:
        """Return format, files and index of the named file or of the one model of the folder."""
        if file and file not in self.names:
            weights = [name for name in self.names if name.endswith((*STREAMED, *PICKLES))]
            raise SparsityReportError(
                f"{self.path} has no file {file!r} on the Hub or in the local cache; "
                f"it has {listed(weights)}"
            )
        if file:
            suffixes = {".safetensors": "safetensors", ".gguf": "gguf"}
            kind, names, weight_map = suffixes.get(Path(file).suffix, "pickle"), [file], None
        else:
            if index := index_name(self.names):
                _download(self.model, self.commit, self._patterns([index]))
            kind, names, weight_map = choose_model(self.path, self.names, self.folder)
        if kind == "gguf":
            names = shard_names(names[0])
            if missing := [shard for shard in names if shard not in self.names]:
                raise SparsityReportError(
                    f"{self.path} has no {missing[0]}, one of {len(names)} shards of a model, on "
                    "the Hub or in the local cache; ask its owner for it"
                )
        return kind, names, weight_map

    def local(self, file: str, names: Sequence[str], weight_map: object) -> Path:
        """Return the local path of a model: that of its folder if it is the default one there."""
        is_default = weight_map is not None or names == [SINGLE] or names[0].endswith(PICKLES)
        return self.folder / (file or ("" if is_default else names[0]))

    def notes(self, file: str, kind: str, names: Sequence[str]) -> tuple[str, ...]:
        """Return a note that names the file of the weights unless it is the default one."""
        named = file or (names[0] if kind == "gguf" else "")
        return (say("note.weights_file", file=named, folder=self.path),) if named else ()

    def download(self, names: Collection[str]) -> None:
        """Download files by exact name, and those of the tokenizer."""
        patterns = TOKENIZER_FILES
        tokenizer = [name for name in self.names if any(fnmatch(name, each) for each in patterns)]
        chosen = self._patterns([*names, *tokenizer, *_CONFIGS])
        _download(self.model, self.commit, chosen, is_shown=True)

    def _patterns(self, names: Collection[str]) -> list[str]:
        return [escape(f"{self.subfolder}/{name}".lstrip("/")) for name in names]


def _download(
    model: str, revision: str | None, patterns: list[str], is_shown: bool = False
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        """Progress on a terminal only."""

        def __init__(self, *values: Any, **options: Any) -> None:
            options["disable"] = not is_shown or options.get("disable") or None
            super().__init__(*values, **options)  # type: ignore[no-untyped-call]

    try:
        options: Any = {"revision": revision, "allow_patterns": patterns, "tqdm_class": Bar}
        return Path(snapshot_download(model, **options))
    except Exception as error:  # a missing network raises many exceptions
        raise refusal(error, model, revision) or SparsityReportError(
            f"{model} is not a local path, is not in the local Hub cache, and the Hub cannot be "
            f"reached ({type(error).__name__}); on a connected machine run `hf download {model}`, "
            "or give the path of a local copy"
        ) from error
