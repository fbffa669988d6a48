"""In-place pruning of the layers of a live model."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from torch import nn
from torch.nn.utils import prune

from sparsity_report.counting.histogram import count_slices
from sparsity_report.counting.policies.magnitude_policies import check_rankable, threshold_cuts
from sparsity_report.counting.pruning_policies import check_sparsity
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy.describe import describe
from sparsity_report.weights.anatomy.names_only import ReaderOptions
from sparsity_report.weights.anatomy.parameter_places import locate, value, walk
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.torch_tensors import tensor_slices, to_array, to_tensor


def select_prunable_linears(
    model: nn.Module, blacklist: Collection[str] = ("lm_head",)
) -> list[nn.Module]:
    """Return the linear layers of `model` that pruning may choose from, in its order.

    ``nn.Linear`` and transformers' ``Conv1D`` count; tied weights, routers, fused experts and
    modules with a `blacklist` word in their dotted name do not.

    Parameters
    ----------
    model : nn.Module
        A live model, which is not modified.
    blacklist : collection of str
        Words in the dotted names of modules to leave out; ``lm_head`` stands for the output head
        under any name.

    Returns
    -------
    list of nn.Module
        Modules of `model`, not copies.

    Examples
    --------
    >>> model = nn.ModuleDict({"fc1": nn.Linear(2, 2), "lm_head": nn.Linear(2, 2)})
    >>> len(select_prunable_linears(model)), len(select_prunable_linears(model, blacklist=()))
    (1, 2)
    """
    places = walk(model)
    holders = locate(places)
    return [
        holders[parameter.name][0]
        for module in describe(places, ReaderOptions(blacklist=blacklist)).modules
        for parameter in module.parameters
        if parameter.prunable and parameter.layout == "dense" and len(parameter.shape) == 2
    ]


def prune_global_magnitude_(layers: Sequence[nn.Module], amount: float) -> Sequence[nn.Module]:
    """Mask the smallest magnitudes over all `layers` together, exactly, in place.

    Like ``torch.nn.utils.prune.global_unstructured`` with ``L1Unstructured`` it keeps
    ``weight_orig`` and ``weight_mask`` until :func:`freeze_pruning_`. Unlike it, it neither
    concatenates nor sorts, and it prunes equal magnitudes in order of position.

    Parameters
    ----------
    layers : sequence of nn.Module
        Layers with a ``weight``, e.g. from :func:`select_prunable_linears`.
    amount : float
        Share of their weights to prune, from 0 to 1.

    Returns
    -------
    sequence of nn.Module
        The same `layers`.

    Raises
    ------
    SparsityReportError
        `amount` is not a number from 0 to 1, there is no layer, or a weight is NaN.

    Examples
    --------
    >>> layer = nn.Linear(10, 10)
    >>> _ = freeze_pruning_(prune_global_magnitude_([layer], amount=0.3))
    >>> int((layer.weight == 0).sum())
    30
    """
    level = check_sparsity(amount)
    named = {f"layers[{i}].weight": layer for i, layer in enumerate(dict.fromkeys(layers))}
    if not named:
        raise SparsityReportError(
            "layers: there is no layer to prune; pass some, for example of select_prunable_linears"
        )

    def slices(name: str) -> Iterator[Slice]:
        yield from tensor_slices(value(named[name], "weight"))

    counts = check_rankable(count_slices({name: slices(name) for name in named}))
    target = round(level * sum(magnitudes.total for magnitudes in counts.values()))
    cuts = threshold_cuts(counts, slices, target)
    for name, layer in named.items():
        weight = value(layer, "weight")
        keep = cuts[name].mask(to_array(weight)) if name in cuts else np.ones(weight.shape)
        prune.custom_from_mask(layer, "weight", to_tensor(keep).to(weight.device))
    return layers


def freeze_pruning_(layers: Sequence[nn.Module]) -> Sequence[nn.Module]:
    """Write the masks of `layers` into ``weight`` as zeros and drop them, in place.

    Layers without a mask do not change.

    Parameters
    ----------
    layers : sequence of nn.Module
        Layers with a ``weight``, masked or not.

    Returns
    -------
    sequence of nn.Module
        The same `layers`.

    Examples
    --------
    >>> (layer,) = freeze_pruning_(prune_global_magnitude_([nn.Linear(10, 10)], amount=0.5))
    >>> sorted(name for name, _ in layer.named_parameters())
    ['bias', 'weight']
    """
    for layer in layers:
        if prune.is_pruned(layer):
            prune.remove(layer, "weight")
    return layers
