"""Checkpoints on the Hugging Face Hub: downloaded, taken from the local cache, or streamed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.packed.quantization_config import SETTINGS_BESIDE
from sparsity_report.weights.sources.gguf_files import model_names, shard_names
from sparsity_report.weights.sources.http_ranges import HubFile, refusal
from sparsity_report.weights.sources.model_paths import (
    PICKLES,
    STREAMED,
    TOKENIZER_FILES,
    HubPlace,
)
from sparsity_report.weights.sources.safetensors import (
    INDEX,
    SINGLE,
    choose_shards,
    listed,
    only_one,
)
from sparsity_report.words.sentences import say

# Files that describe the model and how its weights are packed.
_CONFIGS = ("config.json", "adapter_config.json", *SETTINGS_BESIDE)
# Files whose metadata is requested in parallel.
_PARALLEL = 8


class UnstreamableError(SparsityReportError):
    """A model of the Hub that is not there to be read by ranges."""


def fetch(place: HubPlace, *, allow_pickle: bool) -> tuple[Path, tuple[str, ...]]:
    """Download a Hub model; return its local folder or file, and notes on its origin.

    Without safetensors and GGUF, ``pytorch_model*.bin`` are downloaded where pickles are allowed.

    Raises
    ------
    SparsityReportError
        The model does not exist, is gated, or is neither cached nor reachable; or the repository
        holds several models and none is named.
    """
    file, source = place.file, _Folder(place)
    names, weight_map, notes = _select(source, file)
    if names:
        is_folder = weight_map is not None or names == [SINGLE]
        path = source.download(names) / (file or ("" if is_folder else names[0]))
        return path, notes
    if file and not allow_pickle:
        raise SparsityReportError(
            f"{file} of {source.path} is not a .safetensors or .gguf file; if it is a PyTorch "
            "pickle, it is opened only with allow_pickle=True (--allow-pickle)"
        )
    if file:
        return source.download([file]) / file, notes
    if not source.pickles:
        deeper = listed([f"{source.path}/{each}" for each in source.deeper])
        raise SparsityReportError(
            f"{source.path} has no safetensors, GGUF or pytorch_model.bin on the Hub or in the "
            f"local cache{f'; name a folder of it: {deeper}' if deeper else ''}"
        )
    if not allow_pickle:
        raise SparsityReportError(
            f"{source.path} has no safetensors on the Hub or in the local cache; "
            "its pickles are opened only with allow_pickle=True (--allow-pickle)"
        )
    return source.download(source.pickles), ()


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


def find(place: HubPlace) -> Remote:
    """Look up the weight files of a Hub model without downloading them.

    Raises
    ------
    UnstreamableError
        The Hub cannot be reached, or it has neither safetensors nor GGUF files.
    SparsityReportError
        As :func:`fetch`.
    """
    source = _Folder(place)
    source.check_listed()
    names, weight_map, notes = _select(source, place.file)
    if not names:
        path = f"{source.path}/{place.file}".rstrip("/")
        raise UnstreamableError(
            f"{path} is neither safetensors nor GGUF on the Hub, and nothing else is streamed; "
            "give such files, or a local copy"
        )
    paths = [f"{place.folder}/{name}".lstrip("/") for name in names]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        files = tuple(pool.map(partial(HubFile.look_up, place.model, source.commit), paths))
    return Remote(source.folder, files, weight_map, notes)


def cached(place: HubPlace, reason: Exception) -> Path:
    """Return the local copy of a Hub model that cannot be streamed for a reason.

    Raises
    ------
    SparsityReportError
        There is no copy.
    """
    from huggingface_hub import snapshot_download

    model = place.model
    headed = [f"{place.folder}/*{end}".lstrip("/") for end in (*STREAMED, ".json")]
    try:
        folder = snapshot_download(
            model, revision=place.revision, allow_patterns=headed, local_files_only=True
        )
    except Exception as error:  # several
        raise SparsityReportError(f"{model} has no headers to read: {reason}") from error
    path = Path(folder, place.folder, place.file)
    if not any(each.suffix in STREAMED for each in (path, *path.glob("*"))):
        raise SparsityReportError(f"{model} has no headers to read: {reason}")
    return path


def _select(
    source: _Folder, file: str
) -> tuple[list[str], Mapping[str, str] | None, tuple[str, ...]]:
    """Select the named file, else safetensors, or GGUF where no pickles are.

    Returns
    -------
    tuple
        Names of the files of one model, empty where there are none; the file of each tensor from
        an index; and notes on their origin.
    """
    if file:
        source.check_file(file)
        names = source.shards(file) if file.endswith(STREAMED) else []
        return names, None, (source.file_note(file),)
    names, weight_map = source.safetensors()
    if names or source.pickles:
        return names, weight_map, ()
    names = source.gguf()
    return names, None, tuple(map(source.file_note, names[:1]))


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
        self._list_error: Exception | None = None
        try:
            names = HfApi().list_repo_files(model, revision=self.commit)
        except Exception as error:  # a missing network raises many exceptions
            files = (file for file in root.rglob("*") if file.is_file())
            self._list_error, names = error, [file.relative_to(root).as_posix() for file in files]
        prefix = f"{subfolder}/".lstrip("/")
        paths = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        self.names = sorted(name for name in paths if "/" not in name)
        self.deeper = sorted({f.rpartition("/")[0] for f in paths if f.endswith(STREAMED)} - {""})
        self.pickles = [name for name in self.names if fnmatch(name, "pytorch_model*.bin")]

    def file_note(self, file: str) -> str:
        """Return a note that names the file that the weights come from."""
        return say("note.weights_file", file=file, folder=self.path)

    def check_listed(self) -> None:
        """Refuse a repository whose files the Hub did not list."""
        if (error := self._list_error) is not None:
            raise refusal(error, self.model, self.revision) or UnstreamableError(
                f"{self.model} cannot be read from the Hub ({type(error).__name__}); "
                "try again, or load the local copy without stream"
            ) from error

    def check_file(self, name: str) -> None:
        """Refuse a file that the folder does not hold."""
        if name not in self.names:
            weights = [name for name in self.names if name.endswith((*STREAMED, *PICKLES))]
            raise SparsityReportError(
                f"{self.path} has no file {name!r} on the Hub or in the local cache; "
                f"it has {listed(weights)}"
            )

    def download(self, names: Collection[str]) -> Path:
        """Download files by exact name, and those of the tokenizer; return their folder."""
        patterns = TOKENIZER_FILES
        tokenizer = [name for name in self.names if any(fnmatch(name, each) for each in patterns)]
        chosen = self._patterns([*names, *tokenizer, *_CONFIGS])
        _download(self.model, self.commit, chosen, is_shown=True)
        return self.folder

    def safetensors(self) -> tuple[list[str], Mapping[str, str] | None]:
        """Return the safetensors of the model, and the file of each tensor from an index."""
        if INDEX in self.names:
            _download(self.model, self.commit, self._patterns([INDEX]))
        return choose_shards(self.path, self.names, self.folder)

    def gguf(self) -> list[str]:
        """Return the shards of the one GGUF model of the folder; empty if there is none."""
        models = only_one(self.path, model_names(self.names))
        return self.shards(models[0]) if models else []

    def shards(self, name: str) -> list[str]:
        """Return the names of all shards of the model that a file belongs to."""
        shards = shard_names(name)
        if missing := [shard for shard in shards if shard not in self.names]:
            raise SparsityReportError(
                f"{self.path} has no {missing[0]}, one of {len(shards)} shards of a model, on "
                "the Hub or in the local cache; ask its owner for it"
            )
        return shards

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
        return Path(
            snapshot_download(model, revision=revision, allow_patterns=patterns, tqdm_class=Bar)
        )
    except Exception as error:  # a missing network raises many exceptions
        raise refusal(error, model, revision) or UnstreamableError(
            f"{model} is not a local path, is not in the local Hub cache, and the Hub cannot be "
            f"reached ({type(error).__name__}); on a connected machine run `hf download {model}`, "
            "or give the path of a local copy"
        ) from error
