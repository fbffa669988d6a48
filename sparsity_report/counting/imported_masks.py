"""Masks made elsewhere: read from a file or a mapping, checked, and kept a bit per weight."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.frozen_arrays import Fixed
from sparsity_report.counting.policies import check_values
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.pruning import Basis, CountedCut, Cut, Pruning
from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.sparse.shares import zero_share
from sparsity_report.weights.anatomy.parameters import Parameter
from sparsity_report.weights.sources.npz import Array, Values, read_npz
from sparsity_report.weights.sources.safetensors import read_header
from sparsity_report.weights.tensor_slices import pieces
from sparsity_report.weights.weights import Weights

Masks = str | os.PathLike[str] | Mapping[str, Any]

_SUFFIX = "_mask"


@dataclass(frozen=True, slots=True)
class MaskCut(CountedCut):
    """What a mask takes, a bit per weight.

    Attributes
    ----------
    bits : Fixed
        1 for what stays, in the order of memory, eight to a byte, the first the highest.
    taken : int
        Number of elements pruned.
    nonzero : int
        How many of those kept are not zero.
    """

    bits: Fixed
    taken: int
    nonzero: int

    @property
    def pruned(self) -> int:
        """Number of elements pruned, those that were zero already counted in."""
        return self.taken

    def _chosen(self, parts: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        start = 0
        for part in parts:
            stop = start + part.numel()
            packed = self.bits.values[start // 8 : -(-stop // 8)]
            bits = np.unpackbits(packed)[start % 8 : start % 8 + part.numel()]
            stays = torch.from_numpy(bits.astype(bool)).reshape(part.shape)
            start = stop
            yield part, stays.to(part.device)


def import_mask(
    masks: Masks, weights: Weights, *, pruned_is: int = 0, progress: Progress | None = None
) -> Pruning:
    """Prune by masks that were made elsewhere.

    Parameters
    ----------
    masks : path-like or mapping of str to array
        A ``.safetensors`` or ``.npz`` file, or tensors or arrays, of zeros and ones of any type, by
        the names and in the shapes of the model's parameters in memory. A name may end in
        ``_mask``, as the buffers of ``torch.nn.utils.prune`` do. Parameters without a mask stay as
        they are.
    weights : Weights
        From :func:`sparsity_report.load`.
    pruned_is : {0, 1}
        The value of what goes: 0 as in ``torch.nn.utils.prune``, or 1. It is not guessed.
    progress : callable, optional
        See :func:`sparsity_report.counting.counts.count_weights`.

    Returns
    -------
    Pruning
        Its sparsity is the share of the prunable weights that goes. It holds a bit per weight.

    Raises
    ------
    SparsityReportError
        The file cannot be read, a name is unknown, a shape is another, a value is neither 0 nor 1,
        or something goes that is not prunable.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> name = weights.prunable[0].name
    >>> pruning = sr.import_mask({f"{name}_mask": np.eye(128)}, weights)
    >>> pruning.pruned, sr.masked(pruning).name
    (16256, 'MaskedImported')
    """
    if isinstance(pruned_is, bool) or pruned_is not in (0, 1):
        raise SparsityReportError(f"pruned_is must be 0 or 1, not {pruned_is!r}")
    check_values(weights)
    parameters = {p.name: p for p in weights.stored}
    counts = count_weights(weights, progress)
    name, given = _given(masks)
    cuts: dict[str, Cut] = {}
    digest = hashlib.sha256()
    for each in _unique(given, name, parameters, weights):
        parameter = parameters[_plain(each.name, parameters)]
        cut = _cut(each, name, parameter, pruned_is)
        digest.update(f"{parameter.name!r} {cut.bits.digest}".encode())
        if not cut.taken:
            continue
        if not parameter.prunable:
            raise SparsityReportError(
                f"{name}: {each.name!r} prunes {cut.taken:,} weights of {parameter.name}, which is "
                f"not prunable in {weights.name}: embeddings, norms and biases never are, output "
                "heads with load(…, blacklist=())"
            )
        if counts[parameter.name].nonzero < parameter.total:
            found = cut.kept(pieces(weights.as_in_memory(parameter.name)))
            cut = replace(cut, nonzero=found)
        cuts[parameter.name] = cut
    total = sum(p.total for p in weights.prunable)
    share = zero_share(total, total - sum(cut.pruned for cut in cuts.values())) or 0.0
    basis = Basis(name, digest.hexdigest()[:16])
    return Pruning(weights, share, "imported_masks", cuts, basis)


def _cut(mask: Array, file: str, parameter: Parameter, pruned_is: int) -> MaskCut:
    """Read a mask of a parameter."""
    if mask.shape != parameter.shape:
        raise SparsityReportError(
            f"{file}: {mask.name!r} has shape {mask.shape}, but {parameter.name} has "
            f"{parameter.shape}"
        )
    keep, done = np.empty(parameter.total, dtype=bool), 0
    for values in mask.values():
        ones = values == 1
        if not (ones | (values == 0)).all():
            wrong = values[~(ones | (values == 0))].flat[0]
            raise SparsityReportError(
                f"{file}: {mask.name!r} holds {wrong}; a mask is of zeros and ones"
            )
        keep[done : done + values.size] = ones.reshape(-1) == (pruned_is == 0)
        done += values.size
    kept = int(np.count_nonzero(keep))
    return MaskCut(Fixed(np.packbits(keep)), parameter.total - kept, kept)


def _unique(
    given: Iterable[Array], file: str, parameters: Mapping[str, Parameter], weights: Weights
) -> Iterator[Array]:
    """Yield masks in the order of the model; refuse unknown names, and two of one parameter."""
    masks: dict[str, Array] = {}
    for mask in given:
        name = _plain(mask.name, parameters)
        if name not in parameters:
            raise SparsityReportError(
                f"{file}: {mask.name!r} is the name of no parameter of {weights.name}, such as "
                f"{weights.prunable[0].name!r}; give the masks alone, by the names in memory"
            )
        if name in masks:
            raise SparsityReportError(f"{file} holds two masks of {name!r}; which one counts?")
        masks[name] = mask
    if not masks:
        raise SparsityReportError(f"{file} holds no masks")
    yield from (masks[name] for name in parameters if name in masks)


def _plain(name: str, parameters: Mapping[str, Parameter]) -> str:
    return name if name in parameters else name.removesuffix(_SUFFIX)


def _given(masks: Masks) -> tuple[str, Iterable[Array]]:
    """Return what to call masks, and what there is of them."""
    if isinstance(masks, Mapping):
        return "masks", [_array(str(name), value) for name, value in masks.items()]
    path = Path(masks)
    if path.suffix.lower() == ".npz":
        return writable(path.name), read_npz(path)
    if path.suffix.lower() == ".safetensors":
        return writable(path.name), _tensors(path)
    raise SparsityReportError(
        f"{path}: masks are read from .safetensors and .npz files; of any other give a mapping of "
        "names to arrays, such as torch.load(path, weights_only=True)"
    )


def _array(name: str, value: Any) -> Array:
    """Return a tensor or an array as a mask."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        if tensor.layout != torch.strided or tensor.is_meta:
            raise SparsityReportError(f"masks: {name!r} is no dense tensor with values")
        return Array(name, tuple(tensor.shape), lambda: [_numpy(tensor.cpu())])
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise SparsityReportError(f"masks: {name!r} is no array: {error}") from error
    if array.dtype.kind not in "biufc":
        raise SparsityReportError(f"masks: {name!r} is no array of numbers")
    return Array(name, array.shape, lambda: [array])


def _tensors(path: Path) -> Iterator[Array]:
    """Yield the masks of a safetensors file."""
    for entry in read_header(path):
        if entry.kind:
            raise SparsityReportError(f"{path}: {entry.key!r} is packed; a mask is of 0 and 1")
        yield Array(
            entry.key,
            entry.shape,
            lambda entry=entry: map(_numpy, pieces(entry.slices())),  # type: ignore[misc]
        )


def _numpy(tensor: torch.Tensor) -> Values:
    """Return values as NumPy has them, which knows no bfloat16 and no float8."""
    small = tensor.dtype.is_floating_point and tensor.dtype not in (torch.float64, torch.float32)
    array: Values = (tensor.float() if small else tensor).numpy()
    return array
