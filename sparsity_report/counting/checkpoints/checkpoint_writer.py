"""A pruned or unpacked model as safetensors files, written slice by slice and counted again."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import as_completed
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import torch

from sparsity_report.counting.checkpoints.checkpoint_layout import Layout
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import count_slice
from sparsity_report.counting.progress import Progress, bar
from sparsity_report.counting.pruning import Cut, Pruning, masked_copy
from sparsity_report.counting.workers import threads, work_through
from sparsity_report.errors import SparsityReportError
from sparsity_report.files import filesystem
from sparsity_report.files.new_folder import new_folder
from sparsity_report.untrusted import limits
from sparsity_report.weights.adapters.merged_adapter import AdaptedWeights
from sparsity_report.weights.anatomy.tensor_names import Converted
from sparsity_report.weights.loading import load
from sparsity_report.weights.packed.quantization_config import SETTINGS_BESIDE, SETTINGS_KEYS
from sparsity_report.weights.sources.checkpoint import CheckpointWeights
from sparsity_report.weights.sources.model_paths import TOKENIZER_FILES
from sparsity_report.weights.sources.safetensors import INDEX, stays_inside
from sparsity_report.weights.tensor_slices import (
    FP8,
    Entry,
    FileSlice,
    LocalFile,
    is_float,
    torch_dtype,
)
from sparsity_report.weights.weights import Parameter, Weights

# Files beside the weights that are copied, and those that describe other files.
_BESIDE = (*TOKENIZER_FILES, "*.jinja", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_NOT_COPIED = ("/config.json", "adapter_config.json", ".index.json", ".py", ".safetensors")
# Values masked at a time, which fit into the cache of a processor.
_BLOCK = 2**17


def write_weights(
    weights: Weights,
    pruning: Pruning | None,
    layout: Layout,
    folder: Path,
    texts: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    """Write a model with its pruned weights set to zero into a new folder, and count it again.

    Parameters
    ----------
    weights : Weights
    pruning : Pruning or None
    layout : Layout
        From :func:`layout_of`.
    folder : pathlib.Path
    texts : mapping of str to str
        Further files.
    progress : callable, optional
        Called with the bytes written, the bytes in all and the name of the file.
    """
    check_place(weights, folder)
    _check_space(folder, sum(layout.sizes.values()))
    counts = count_weights(weights)
    left = {name: counted.nonzero for name, counted in counts.items()}
    for name, cut in pruning.cuts.items() if pruning else ():
        left[name] = cut.nonzero_after(counts[name])
    with new_folder(folder) as hidden:
        with filesystem.one_line_errors(folder):
            _write_beside(weights, layout, hidden, texts)
            with bar("writing", given=progress) as show:
                _write_values(weights, pruning, layout, hidden, show)
        _check(weights, layout, hidden, left)


def home_of(weights: Weights) -> Path | None:
    """Return the folder of a model's files; None for a module."""
    weights = weights.base if isinstance(weights, AdaptedWeights) else weights
    return weights.directory if isinstance(weights, CheckpointWeights) else None


def check_place(weights: Weights, folder: Path) -> None:
    """Refuse to write into the opened model, or around it."""
    weights = weights.base if isinstance(weights, AdaptedWeights) else weights
    if not isinstance(weights, CheckpointWeights):
        return
    source, target = weights.path.resolve(), folder.resolve()
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
    if layout.index:
        filesystem.create(folder / INDEX, layout.index.encode())
    home = home_of(weights)
    for file in _beside(home) if home and weights.source != "gguf" else ():
        if not (layout.unpacks and file.name in SETTINGS_BESIDE):
            filesystem.create(folder / file.name, file.read_bytes())
    config = weights.configuration()
    if config and layout.unpacks:
        dtype = _widest(layout.tensors.values())
        config = {"dtype": dtype, **_unpacked_settings(config, dtype)}
    is_new = layout.unpacks or getattr(weights, "settings", None) is not None
    if config and is_new:
        settings = json.dumps(config, indent=2, ensure_ascii=False)
        filesystem.create(folder / "config.json", f"{settings}\n".encode())
    elif config and home:
        filesystem.create(folder / "config.json", (home / "config.json").read_bytes())
    if weights.source == "gguf":
        with suppress(SparsityReportError):  # some GGUF files hold no tokenizer
            weights.tokenizer().save_pretrained(folder)
    for name, text in texts.items():
        filesystem.create(folder / name, text.encode())


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
        and stays_inside(file)
        and file.stat().st_size <= limits.TEXT_BYTES
    )


def _unpacked_settings(config: Mapping[str, object], dtype: str) -> dict[str, object]:
    """Return a configuration without quantization and with a dtype."""
    packing = {key for key in SETTINGS_KEYS if isinstance(config.get(key), dict)}
    kept = {key: value for key, value in config.items() if key not in packing}
    for key, value in kept.items():
        if key in {"dtype", "torch_dtype"}:
            kept[key] = dtype
        elif isinstance(value, dict):
            kept[key] = _unpacked_settings(value, dtype)
    return kept


def _widest(tensors: Iterable[Entry]) -> str:
    """Return the dtype that holds the values of all tensors of floating-point numbers."""
    dtypes = {e.values.dtype for e in tensors if is_float(e.values.dtype)}
    narrow = len(dtypes) == 1 and not dtypes & {*FP8}
    return dtypes.pop() if narrow else "float64" if "float64" in dtypes else "float32"


def _write_values(
    weights: Weights, pruning: Pruning | None, layout: Layout, folder: Path, show: Progress
) -> None:
    """Write all tensors: first those that no cut changes, then the parameters with a cut."""
    sizes, done, stop = layout.sizes, 0, Event()
    for file, size in sizes.items():
        with filesystem.opened(folder / file, os.O_WRONLY) as handle:
            os.ftruncate(handle, size)
    changed = {name: pruning.cuts[name] for name in pruning.changed} if pruning else {}
    streamed, covered, converted = dict[str, Cut](), set[str](), list[str]()
    for name, cut in changed.items():
        parts = layout.parts(weights, name)
        if any(isinstance(part.values, Converted) for part in parts):
            converted.append(name)
            continue
        streamed[name] = cut
        covered |= {part.key for part in parts if part.total == layout.tensors[part.key].total}
    copies = [
        partial(_copy, entry, folder / layout.places[key][0], layout.places[key][1])
        for key, entry in layout.tensors.items()
        if key not in covered
    ]
    cuts = [
        partial(_write_masked, weights, p, streamed[p.name], layout, folder)
        for p in weights.stored
        if p.name in streamed
    ]
    total = sum(sizes.values())
    with threads() as pool:
        for tasks in (copies, cuts):
            futures = [pool.submit(task, stop) for task in tasks]
            try:
                for future in as_completed(futures):
                    done += future.result()
                    show(min(done, total), total, folder.name)
            except BaseException:
                stop.set()
                for future in futures:
                    future.cancel()
                raise
    for name in converted:
        _mask_converted(weights, name, changed[name], layout, folder)


def _copy(entry: Entry, file: Path, offset: int, stop: Event) -> int:
    """Write a tensor as it is; return its bytes."""
    dtype = torch_dtype(entry.values.dtype)
    pieces = (piece.to(dtype) for part in entry.slices() for piece in part.pieces())
    return _write_at([(file, offset, entry.total)], pieces, stop)


def _write_masked(
    weights: Weights,
    parameter: Parameter,
    cut: Cut,
    layout: Layout,
    folder: Path,
    stop: Event,
) -> int:
    """Write a parameter with its pruned weights set to zero; return its bytes."""
    pieces = (piece for part in weights.as_in_memory(parameter.name) for piece in part.pieces())
    rows, waiting = _whole_rows(pieces, parameter), list[torch.Tensor]()
    parts = layout.parts(weights, parameter.name)
    dtype = torch_dtype(layout.tensors[parts[0].key].values.dtype)

    def masked() -> Iterator[torch.Tensor]:
        masks = cut.masks(_taken(waiting))
        for values in rows:
            waiting.append(values)
            yield masked_copy(values, next(masks)).to(dtype)
        next(masks, None)  # compares the pruned weights with the counted ones

    spans = []
    for part in parts:
        file, offset = layout.place(part)
        spans.append((folder / file, offset, part.total))
    return _write_at(spans, masked(), stop)


def _taken(waiting: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    while waiting:
        yield waiting.pop()


def _whole_rows(pieces: Iterable[torch.Tensor], parameter: Parameter) -> Iterator[torch.Tensor]:
    """Yield matrices of whole rows; whole matrices if their inputs come first."""
    matrix = parameter.inputs_outputs
    shape = matrix or (-1, parameter.shape[-1])
    unit = matrix[0] * matrix[1] if matrix else parameter.shape[-1]
    held, count = list[torch.Tensor](), 0
    for piece in pieces:
        held.append(piece)
        count += piece.numel()
        if count < unit:
            continue
        values = torch.cat(held) if len(held) > 1 else piece
        complete = count // unit * unit
        step = unit if matrix else max(_BLOCK // unit, 1) * unit
        yield from (part.view(shape) for part in values[:complete].split(step))
        held, count = ([values[complete:]] if complete < count else []), count - complete


def _write_at(
    spans: list[tuple[Path, int, int]], pieces: Iterable[torch.Tensor], stop: Event
) -> int:
    """Write values to runs of files in order; return the bytes written."""
    written = 0
    rest = torch.empty(0)
    pieces = iter(pieces)
    for file, offset, total in spans:
        with filesystem.opened(file, os.O_WRONLY) as handle:
            os.lseek(handle, offset, os.SEEK_SET)
            while total:
                if not rest.numel():
                    rest = next(pieces).reshape(-1)
                if stop.is_set():
                    return written
                data = rest[:total].contiguous().view(torch.uint8).numpy().data
                filesystem.write_all(handle, data)
                written += len(data)
                rest, total = rest[total:], total - min(total, rest.numel())
    for _ in pieces:  # lets generators check what they have read
        raise SparsityReportError(f"{spans[0][0].name}: a tensor has more values than its shape")
    return written


def _mask_converted(weights: Weights, name: str, cut: Cut, layout: Layout, folder: Path) -> None:
    """Set to zero, in copied tensors, the values of which transformers makes pruned weights."""
    (entry,) = layout.parts(weights, name)
    assert isinstance(entry.values, Converted)
    conversion, starts, total = entry.values.conversion, dict[str, int](), 0
    for _, source in conversion.sources:
        starts[source.key] = total
        total += source.total

    def numbered(source: Entry) -> torch.Tensor:
        first = starts[source.key]
        return torch.arange(first, first + source.total).reshape(source.shape)

    places = conversion.run(numbered)[name].reshape(-1)
    reached = torch.zeros(total, dtype=torch.bool)
    if places.dtype == torch.int64 and 0 <= places.min() <= places.max() < total:
        reached[places] = True
    if int(reached.sum()) != weights[name].total:
        raise weights.wrong(
            f"has {name}, which transformers computes from several values on loading, so no mask "
            "of its files follows; load it with transformers and give the module"
        )
    pruned = torch.zeros(total, dtype=torch.bool)
    pruned[places] = ~cut.mask(weights.tensor(name)).reshape(-1)
    for _, source in conversion.sources:
        mask = pruned[starts[source.key] :][: source.total]
        file, offset = layout.places[source.key]
        written = LocalFile.look_up(folder / file)
        values = FileSlice(source.total, source.values.dtype, written, offset)
        tensor = masked_copy(replace(source, values=values).read().reshape(-1), ~mask)
        _write_at([(folder / file, offset, source.total)], [tensor], Event())


def _check(weights: Weights, layout: Layout, folder: Path, left: Mapping[str, int]) -> None:
    """Open and count the written model; refuse it if a zero or a place differs from the derived."""
    written = load(folder, name=weights.name, config=bool(weights.architecture))
    shapes = {p.name: p.shape for p in weights.stored}
    if {p.name: p.shape for p in written.stored} != shapes:
        raise weights.wrong("was written and opens with other parameters; nothing is kept")
    assert isinstance(written, CheckpointWeights)
    if layout.by_parameter:
        moved = [name for name in shapes if [e.key for e in written.entries(name)] != [name]]
        moved += [n for n in shapes if not isinstance(written.entries(n)[0].values, FileSlice)]
        if moved:
            raise weights.wrong(
                f"has {moved[0]}, which transformers rearranges on loading, so it cannot be "
                "written from memory; give its safetensors files"
            )
    counts = work_through(
        {name: written.slices(name) for name in left}, partial(count_slice, histogram=False), None
    )
    for name, parts in counts.items():
        if (nonzero := sum(part.nonzero for part in parts)) != left[name]:
            raise weights.wrong(
                f"was written with {nonzero:,} nonzeros in {name} instead of {left[name]:,}; "
                "nothing is kept; is the disk sound, and did the model change meanwhile?"
            )
