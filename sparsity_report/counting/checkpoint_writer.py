"""Smaller, pruned or unpacked models on disk, written slice by slice and read again."""

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import tee
from pathlib import Path

import numpy as np

from sparsity_report.counting.checkpoint_layout import Layout, rearranged
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.cuts import Cut, masked_copy
from sparsity_report.counting.histogram import Values, count_slice
from sparsity_report.counting.matrix_counts import in_runs
from sparsity_report.counting.progress import Progress, bar
from sparsity_report.counting.pruning import Pruning
from sparsity_report.counting.workers import in_order, unflushed, work_through
from sparsity_report.errors import SparsityReportError
from sparsity_report.files import filesystem
from sparsity_report.files.atomic import new_folder
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.untrusted import limits
from sparsity_report.weights.adapters.merged_adapter import AdaptedWeights
from sparsity_report.weights.array_dtypes import cast
from sparsity_report.weights.loading import load
from sparsity_report.weights.packed.quantization_config import SETTINGS_BESIDE, SETTINGS_KEYS
from sparsity_report.weights.sources.checkpoint import CheckpointWeights
from sparsity_report.weights.sources.gguf_files import read_header
from sparsity_report.weights.sources.gguf_model import GGUFWeights
from sparsity_report.weights.sources.model_paths import TOKENIZER_FILES
from sparsity_report.weights.sources.safetensors import is_within
from sparsity_report.weights.tensor_slices import FP8, Entry, FileSlice, Slice, is_float, pieces
from sparsity_report.weights.weights import Parameter, Weights

# Files beside the weights that are copied, and those that describe other files.
_BESIDE = (*TOKENIZER_FILES, "*.jinja", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_NOT_COPIED = ("/config.json", "adapter_config.json", ".index.json", ".py", ".safetensors")
# Values masked at a time, which fit into the cache of a processor.
_BLOCK = 2**17
_OTHER_BYTES = (
    "was written with other bytes; nothing is kept; is the disk sound, and did the model change "
    "meanwhile?"
)

_Job = tuple[str, Slice, Callable[[Slice], int]]


@unflushed()
def write_weights(
    weights: Weights,
    pruning: Pruning | None,
    layout: Layout,
    folder: Path,
    texts: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    """Write a model with its pruned weights set to zero to a new place, and count it again.

    Bytes of a GGUF file are read again and compared with those of the source, not counted.

    Parameters
    ----------
    weights : Weights
    pruning : Pruning or None
    layout : Layout
        From :func:`layout_of`.
    folder : pathlib.Path
        New folder or GGUF file.
    texts : mapping of str to str
        Further files.
    progress : callable, optional
        Called with the bytes written, the bytes in all and the name of the file.
    """
    _check_space(folder, sum(layout.sizes.values()))
    counts = {} if layout.alignment else count_weights(weights)
    left = {name: counted.nonzero for name, counted in counts.items()}
    for name, cut in pruning.cuts.items() if pruning else ():
        left[name] = cut.nonzero_after(counts[name])
    with new_folder(folder, is_file=bool(layout.alignment)) as hidden:
        with filesystem.one_line_errors(folder):
            _write_beside(weights, layout, hidden, texts)
            with bar("writing", given=progress) as show:
                _write_values(weights, pruning, layout, hidden, show)
        if layout.alignment:
            _check_header(weights, layout, hidden / folder.name)
        else:
            _check(weights, layout, hidden, left)


def home_of(weights: Weights) -> Path | None:
    """Return the folder of a model's files; None for a module."""
    weights = weights.base if isinstance(weights, AdaptedWeights) else weights
    return weights.directory if isinstance(weights, CheckpointWeights) else None


def check_place(weights: Weights, folder: Path, is_pruned: bool) -> None:
    """Refuse to write into the opened model, or around it, or values to a GGUF file."""
    is_gguf = isinstance(weights, GGUFWeights)
    if folder.suffix == ".gguf" and (is_pruned or not is_gguf):
        reason = "its values would change" if is_gguf else f"{weights.name} is no GGUF model"
        raise SparsityReportError(
            f"cannot write {folder}: {reason}; choose a folder, and convert it with llama.cpp"
        )
    weights = weights.base if isinstance(weights, AdaptedWeights) else weights
    if not isinstance(weights, CheckpointWeights):
        return
    with filesystem.one_line_errors(folder):
        # `Path.resolve` of Python 3.11 raises RuntimeError for circular links.
        source, target = (Path(os.path.realpath(path)) for path in (weights.path, folder))
    if source == target or source in target.parents or target in source.parents:
        raise SparsityReportError(
            f"cannot write {folder}: it is inside the model that is read, or holds it; choose "
            "another path"
        )


def _check_space(folder: Path, size: int) -> None:
    nearest = next(path for path in folder.absolute().parents if path.exists())
    if (free := shutil.disk_usage(nearest).free) < size:
        raise SparsityReportError(
            f"cannot write {folder}: it needs {size:,} bytes and the disk has {free:,} left; "
            "choose a folder on another disk"
        )


def _write_beside(weights: Weights, layout: Layout, folder: Path, texts: Mapping[str, str]) -> None:
    """Write headers, configuration and index, and copy the tokenizer and other data."""
    for name, header in layout.headers.items():
        filesystem.create(folder / name, header)
    if layout.alignment:  # a file with settings and tokenizer
        return
    contents = dict[str, bytes]()
    if layout.index:
        contents[layout.index_name] = layout.index.encode()
    home = home_of(weights)
    for file in _beside(home) if home and weights.source != "gguf" else ():
        if not (layout.unpacks and file.name in SETTINGS_BESIDE):
            contents[file.name] = file.read_bytes()
    if config := weights.configuration():
        contents["config.json"] = _settings(weights, layout, config)
    contents |= {name: text.encode() for name, text in texts.items()}
    for name, content in contents.items():
        filesystem.create(folder / name, content)
    if weights.source == "gguf":
        try:
            weights.tokenizer().save_pretrained(folder)
        except SparsityReportError as error:  # transformers reads it, and some files hold none
            warnings.warn(f"no tokenizer is written: {error}", stacklevel=1)


def _beside(home: Path) -> list[Path]:
    """Return the data files of a transformers folder, none of which leads out of it."""
    if not (home / "config.json").is_file():  # a folder of other things
        return []
    files = {file for pattern in _BESIDE for file in home.glob(pattern)}
    return sorted(
        file
        for file in files
        if not file.name.startswith(".")
        and not f"/{file.name}".endswith(_NOT_COPIED)
        and file.is_file()
        and is_within(file)
        and file.stat().st_size <= limits.TEXT_BYTES
    )


def _settings(weights: Weights, layout: Layout, config: Mapping[str, object]) -> bytes:
    """Return the content of ``config.json``: the source's where nothing in it changes."""
    home = home_of(weights)
    if layout.unpacks:
        dtype = _widest(layout.tensors.values())
        config = {"dtype": dtype, **_unpacked(config, dtype)}
    elif home and getattr(weights, "settings", None) is None:
        return (home / "config.json").read_bytes()
    return f"{json.dumps(config, indent=2, ensure_ascii=False)}\n".encode()


def _unpacked(config: Mapping[str, object], dtype: str) -> dict[str, object]:
    """Return a configuration without quantization and with a dtype."""
    kept = {
        key: _unpacked(value, dtype) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in SETTINGS_KEYS or not isinstance(value, dict)
    }
    return kept | dict.fromkeys(kept.keys() & {"dtype", "torch_dtype"}, dtype)


def _widest(tensors: Iterable[Entry]) -> str:
    """Return the dtype that holds the values of all tensors of floating-point numbers."""
    dtypes = {e.values.dtype for e in tensors if is_float(e.values.dtype)}
    narrow = len(dtypes) == 1 and not dtypes & {*FP8}
    return dtypes.pop() if narrow else "float64" if "float64" in dtypes else "float32"


def _write_values(
    weights: Weights, pruning: Pruning | None, layout: Layout, folder: Path, show: Progress
) -> None:
    """Write all tensors: first those that no cut changes, then the parameters with a cut."""
    sizes, done = layout.sizes, 0
    for file, size in sizes.items():
        with filesystem.opened(folder / file, os.O_WRONLY) as handle:
            os.ftruncate(handle, size)
    total = sum(sizes.values())
    for jobs in _jobs(weights, pruning, layout, folder):
        for _, _, written in in_order(jobs):
            done += written
            show(min(done, total), total, folder.name)


def _jobs(
    weights: Weights, pruning: Pruning | None, layout: Layout, folder: Path
) -> tuple[Iterator[_Job], list[_Job]]:
    """Return the values to copy and those to mask, each with a function that writes them."""
    masked, covered = list[_Job](), set[str]()
    for parameter in weights.stored:
        if pruning is None or parameter.name not in pruning.changed:
            continue
        name, parts = parameter.name, layout.parts(weights, parameter.name)
        covered |= {part.key for part in parts if part.total == layout.tensors[part.key].total}
        dtype = layout.tensors[parts[0].key].values.dtype
        slices = partial(weights.as_in_memory, name)
        values = _Masked(parameter.total, dtype, slices, parameter, pruning.cuts[name])
        masked.append((name, values, partial(_write, folder, [*map(layout.place, parts)], dtype)))
    return _copies(layout, covered, folder), masked


def _copies(layout: Layout, covered: Collection[str], folder: Path) -> Iterator[_Job]:
    """Yield the slices of tensors that no cut covers, with functions that write them."""
    write = partial(_write, folder, is_reread=bool(layout.alignment))
    for key, entry in layout.tensors.items():
        (file, offset), dtype = layout.places[key], entry.values.dtype
        for part in entry.slices() if key not in covered else ():
            yield key, part, partial(write, [(file, offset, part.total)], dtype)
            offset += part.total * value_bytes(dtype)


@dataclass(frozen=True, eq=False)
class _Masked(Slice):
    """Values of a parameter whose pruned weights are set to zero."""

    slices: Callable[[], Iterator[Slice]]
    parameter: Parameter
    cut: Cut

    def pieces(self) -> Iterator[Values]:
        """Yield the values block by block, pruned ones as zeros."""
        rows, masked = tee(self._whole_rows())
        # The last step compares the number of pruned weights with the counted one.
        for mask, values in zip(self.cut.masks(masked), rows, strict=True):
            yield masked_copy(values, mask)

    def _whole_rows(self) -> Iterator[Values]:
        """Yield matrices of whole rows; whole matrices if their inputs come first."""
        matrix, row = self.parameter.inputs_outputs, self.parameter.shape[-1]
        step = math.prod(matrix) if matrix else max(_BLOCK // row, 1) * row
        sizes = (min(step, self.total - start) for start in range(0, self.total, step))
        for values in in_runs(pieces(self.slices()), sizes):
            yield values.reshape(matrix or (-1, row))


def _write(
    folder: Path,
    places: list[tuple[str, int, int]],
    dtype: str,
    values: Slice,
    is_reread: bool = False,
) -> int:
    """Write values in a dtype to runs of files in order; return the bytes written.

    Copied bytes, which are not counted afterwards, are read again and compared.
    """
    written, rest = 0, np.empty(0)
    blocks = iter(values.pieces())
    for file, offset, total in places:
        with filesystem.opened(folder / file, os.O_RDWR) as handle:
            os.lseek(handle, offset, os.SEEK_SET)
            while total:
                if not rest.size:
                    rest = cast(np.ascontiguousarray(next(blocks)).reshape(-1), dtype)
                data = rest[:total].view(np.uint8)
                filesystem.write_all(handle, data.data)
                if is_reread:
                    os.lseek(handle, -len(data), os.SEEK_CUR)
                    again = np.empty_like(data)
                    with open(handle, "rb", buffering=0, closefd=False) as file_again:
                        file_again.readinto(again.data)
                    if not np.array_equal(again, data):
                        raise SparsityReportError(f"{file}: {_OTHER_BYTES}")
                written += len(data)
                rest, total = rest[total:], total - min(total, rest.size)
    for _ in blocks:  # lets generators check what they have read
        raise SparsityReportError(f"{places[0][0]}: a tensor has more values than its shape")
    return written


def _check_header(weights: Weights, layout: Layout, file: Path) -> None:
    """Refuse a GGUF file whose header describes other tensors, or gives them other places."""
    assert isinstance(weights, GGUFWeights)
    _, written = read_header(file)
    rows = [
        [(key, entry.shape, entry.dtype, entry.values.packing) for key, entry in each.items()]
        for each in (weights.raw, written)
    ]
    values = ((key, entry.values) for key, entry in written.items())
    places = {key: (file.name, each.offset) for key, each in values if isinstance(each, FileSlice)}
    if rows[0] != rows[1] or places != layout.places:
        raise weights.wrong(_OTHER_BYTES)


def _check(weights: Weights, layout: Layout, folder: Path, left: Mapping[str, int]) -> None:
    """Open and count the written model; refuse it if a zero or a place differs from the derived."""
    written = load(folder, name=weights.name, config=bool(weights.architecture))
    shapes = {p.name: p.shape for p in weights.stored}
    if {p.name: p.shape for p in written.stored} != shapes:
        raise weights.wrong("was written and opens with other parameters; nothing is kept")
    assert isinstance(written, CheckpointWeights)
    for name in shapes if layout.by_parameter else ():
        first, *others = written.entries(name)
        if others or first.key != name or not isinstance(first.values, FileSlice):
            raise rearranged(weights, name)
    counts = work_through(
        {name: written.slices(name) for name in left}, partial(count_slice, histogram=False), None
    )
    for name, parts in counts.items():
        if (nonzero := sum(part.nonzero for part in parts)) != left[name]:
            raise weights.wrong(
                f"was written with {nonzero:,} nonzeros in {name} instead of {left[name]:,}; "
                "nothing is kept; is the disk sound, and did the model change meanwhile?"
            )
