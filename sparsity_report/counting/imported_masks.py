"""Pruning by masks from a file or a mapping, stored as one bit per weight."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.cuts import CountedCut, Cut
from sparsity_report.counting.histogram import Values
from sparsity_report.counting.n_m_patterns import Flags
from sparsity_report.counting.policies.magnitude_policies import check_values
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.pruning import Basis, Pruning
from sparsity_report.counting.pruning_policies import Policy
from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.sparse.shares import zero_share
from sparsity_report.weights.sources.safetensors import read_header
from sparsity_report.weights.tensor_slices import Entry, HeldSlice, pieces
from sparsity_report.weights.weights import Parameter, Weights

Masks = str | os.PathLike[str] | Mapping[str, Any]

_SUFFIX = "_mask"


@dataclass(frozen=True, eq=False, slots=True)
class MaskCut(CountedCut):
    """A cut by a mask, one bit per weight.

    Attributes
    ----------
    bits : numpy.ndarray
        1 for kept weights, in memory order, eight to a byte, the first in the highest bit.
    """

    bits: npt.NDArray[np.uint8]

    def _masked(self, parts: Iterable[Values]) -> Iterator[tuple[Values, Flags]]:
        start = 0
        for part in parts:
            stop = start + part.size
            packed = self.bits[start // 8 : -(-stop // 8)]
            bits = np.unpackbits(packed)[start % 8 : start % 8 + part.size]
            start = stop
            yield part, bits.astype(bool).reshape(part.shape)


class ImportedMasks(Policy):
    """Masks of another tool."""

    name = "imported_masks"
    has_target = False

    def label(self, sparsity: float) -> str:  # noqa: ARG002
        """Return the suffix in the names of variants."""
        return "Imported"


def import_mask(weights: Weights, masks: Masks, *, progress: Progress | None = None) -> Pruning:
    """Prune by masks from another tool.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    masks : path-like or mapping of str to array
        Zeros for pruned weights and ones for the others, of any type, by the names and in the
        shapes of the model's parameters in memory: a ``.safetensors`` file, or a mapping to tensors
        or arrays, such as ``numpy.load(path)``. A name may end in ``_mask``, like the buffers of
        ``torch.nn.utils.prune``. Parameters without a mask are not pruned.
    progress : callable, optional
        See :func:`global_magnitude`.

    Returns
    -------
    Pruning
        Its sparsity is the pruned share of the prunable weights.

    Raises
    ------
    SparsityReportError
        The file cannot be read, a name is unknown, a shape differs, a value is neither 0 nor 1, or
        a mask prunes a parameter that is not prunable.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> name = weights.prunable[0].name
    >>> pruning = sr.import_mask(weights, {f"{name}_mask": np.eye(128)})
    >>> pruning.pruned, sr.masked(pruning).name
    (16256, 'MaskedImported')
    """
    check_values(weights)
    counts = count_weights(weights, progress)
    name, given = _given(masks)
    cuts: dict[str, Cut] = {}
    digest = hashlib.sha256()
    for parameter, each in _by_parameter(given, name, weights):
        cut = _cut(each, name, parameter)
        digest.update(f"{parameter.name!r} {parameter.shape}".encode())
        digest.update(cut.bits.data)
        if not cut.pruned:
            continue
        if not parameter.prunable:
            raise SparsityReportError(
                f"{name}: {each.key!r} prunes {cut.pruned:,} weights of {parameter.name}, which "
                f"is not prunable in {weights.name}; leave this mask out, or load output heads "
                "with blacklist=()"
            )
        if counts[parameter.name].nonzero < parameter.total:
            cut = replace(cut, nonzero=cut.kept(pieces(weights.as_in_memory(parameter.name))))
        cuts[parameter.name] = cut
    total = sum(p.total for p in weights.prunable)
    share = zero_share(total, total - sum(cut.pruned for cut in cuts.values())) or 0.0
    basis = Basis(name, digest.hexdigest()[:16])
    return Pruning(weights, share, ImportedMasks(), cuts, basis)


def _cut(mask: Entry, file: str, parameter: Parameter) -> MaskCut:
    """Return the cut of a parameter by a mask."""
    if mask.kind:
        raise SparsityReportError(
            f"{file}: {mask.key!r} is packed; a mask holds zeros and ones only"
        )
    if mask.shape != parameter.shape:
        raise SparsityReportError(
            f"{file}: {mask.key!r} has shape {mask.shape}, but {parameter.name} has "
            f"{parameter.shape}; give the mask in the shape of the parameter in memory"
        )
    keep, done = np.empty(parameter.total, dtype=bool), 0
    for values in pieces(mask.slices()):
        ones = values == 1
        if not (ones | (values == 0)).all():
            wrong = values[~(ones | (values == 0))][0]
            raise SparsityReportError(
                f"{file}: {mask.key!r} holds {wrong}; a mask holds zeros and ones only"
            )
        keep[done : done + values.size] = ones
        done += values.size
    kept = int(np.count_nonzero(keep))
    return MaskCut(parameter.total - kept, kept, np.packbits(keep))


def _by_parameter(
    given: Iterable[Entry], file: str, weights: Weights
) -> Iterator[tuple[Parameter, Entry]]:
    """Yield masks in model order; raise an error for unknown names and for duplicates."""
    parameters = {p.name: p for p in weights.stored}
    masks: dict[str, Entry] = {}
    for mask in given:
        name = mask.key if mask.key in parameters else mask.key.removesuffix(_SUFFIX)
        if name not in parameters:
            raise SparsityReportError(
                f"{file}: {mask.key!r} is no parameter of {weights.name}; give masks by the names "
                f"in memory, such as {weights.prunable[0].name!r}"
            )
        if name in masks:
            raise SparsityReportError(f"{file}: there are two masks of {name!r}; keep one")
        masks[name] = mask
    if not masks:
        raise SparsityReportError(f"{file}: there are no masks; give one for each pruned parameter")
    yield from ((p, masks[name]) for name, p in parameters.items() if name in masks)


def _given(masks: Masks) -> tuple[str, Iterable[Entry]]:
    """Return the name of the masks, for errors and notes, and the masks."""
    if isinstance(masks, Mapping):
        return "masks", [_mask_entry(str(name), value) for name, value in masks.items()]
    path = Path(masks)
    if path.suffix.lower() == ".safetensors":
        return writable(path.name), read_header(path)
    raise SparsityReportError(
        f"{path}: masks are read from .safetensors files; for others give a mapping of names to "
        "arrays, such as numpy.load(path) or torch.load(path, weights_only=True)"
    )


def _mask_entry(name: str, value: Any) -> Entry:
    """Return a tensor or an array as a mask."""
    if "torch" in sys.modules:
        from torch import Tensor

        from sparsity_report.weights.torch_tensors import is_strided, to_array

        if isinstance(value, Tensor):
            if not is_strided(value) or value.is_meta:
                raise SparsityReportError(
                    f"masks: {name!r} is not a dense tensor with values; give it as one"
                )
            value = to_array(value)
    try:
        array = np.array(value)
        if array.dtype.kind in "OSU":
            raise TypeError(f"it holds {array.dtype}")
    except (TypeError, ValueError) as error:
        raise SparsityReportError(
            f"masks: {name!r} is not an array of numbers ({error}); give zeros and ones"
        ) from error
    return Entry(name, array.shape, HeldSlice.from_array(array))
