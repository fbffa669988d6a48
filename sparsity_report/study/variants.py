"""Variants to compare: a model as it is, with a mask, or with CSR linears."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.kept_experts import KeptExperts
from sparsity_report.counting.pruning import Basis, Pruning
from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.sparse.shares import zero_share
from sparsity_report.study.layers import LayerTable, csr_parameters, group_frame
from sparsity_report.study.rounded_zeros import is_pruned
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.weights.anatomy.names_only import ReaderOptions
from sparsity_report.weights.weights import Parameter, Weights
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from torch import nn

# Beginnings of the names of variants, by the scores of their experts.
_PREFIXES = {"reap": "REAP", "expert_list": "Experts"}


@dataclass(frozen=True, repr=False)
class Variant:
    """A model under one pruning decision and one layout, whose figures are derived from counts.

    Attributes
    ----------
    name : str
        Name in tables and reports.
    weights : Weights
        The model.
    pruning : Pruning or None
        The weights set to zero; None for the weights as they are.
    layout : str
        ``"dense"``, ``"masked"`` (zeros kept in dense tensors) or ``"csr"``.
    kept : KeptExperts or None
        The experts that the weights have kept; None for a model that lost none here.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    >>> variant = sr.csr(pruning)
    >>> variant.name, variant.layout, variant.weights.name
    ('CSR50', 'csr', 'demo')
    """

    name: str
    weights: Weights
    pruning: Pruning | None
    layout: str
    kept: KeptExperts | None = None

    def __post_init__(self) -> None:
        if writable(self.name) != self.name:
            raise SparsityReportError(f"name={self.name!r}: is not Unicode text; give another name")

    def __repr__(self) -> str:
        name, layout = short_name(self.name), layout_name(self.layout)
        title = say("repr.variant_layout", variant=name, layout=layout)
        return "\n".join([title, *repr(self.pruning or self.weights).splitlines()[:2]])

    @property
    def basis(self) -> Basis | None:
        """The text or file by which weights or experts were chosen; None without one.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
        >>> sr.masked(pruning).basis is None  # magnitudes need no text
        True
        """
        chosen = self.pruning or self.kept
        return chosen.basis if chosen else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the removed experts, and on what weights or experts were chosen by.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
        >>> sr.masked(pruning).notes
        ()
        """
        return tuple(variant_notes([self]))

    def layers(self, convention: str = "standard") -> pd.DataFrame:
        """Return one row per module that owns parameters.

        Parameters
        ----------
        convention : {"standard", "notebook"}
            The convention of counting, see :func:`compare`.

        Returns
        -------
        pandas.DataFrame
            The rows of ``study.layers`` for this variant.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
        >>> layers = sr.masked(pruning).layers()
        >>> weights = layers[layers["prunable"]]
        >>> int(weights["weight_total"].sum() - weights["weight_nonzero"].sum()) == pruning.pruned
        True
        """
        return LayerTable(self.weights, count_weights(self.weights), convention).frame(
            self.name, self.pruning, csr=self.layout == "csr"
        )

    @property
    def is_pruned(self) -> bool:
        """True if the opened model has more zeros than a trace and than rounding explains.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> sr.dense(sr.load()).is_pruned
        False
        """
        return is_pruned(LayerTable(self.weights, count_weights(self.weights)).frame(self.name))

    def module(self, base: nn.Module | None = None) -> nn.Module:
        """Return a runnable model with these weights, leaving the original unchanged.

        Parameters
        ----------
        base : nn.Module, optional
            A model from ``weights.module()``, changed in place instead of loading it again.

        Returns
        -------
        nn.Module
            The pruned model, with ``LinearCSR`` layers in a CSR variant.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
        >>> sr.csr(pruning).module().model.decoder.layers[0].fc1.dense_shape
        (512, 128)
        """
        model = self.weights.module() if base is None else base
        if self.pruning is not None:
            self.pruning.apply_(model)
        if self.layout == "csr":
            names = csr_parameters(self.weights)
            dense = [p for p in self.weights.prunable if p.layout != "csr"]
            return _converted(model, [p for p in dense if p.name in names])
        return model


def dense(weights: Weights | str | os.PathLike[str] | nn.Module, *, name: str = "Dense") -> Variant:
    """Return a model as it is, pruned already or not.

    Parameters
    ----------
    weights : Weights, path, Hub id or nn.Module
        The model; anything that :func:`sparsity_report.load` accepts.
    name : str
        Name of the variant.

    Returns
    -------
    Variant
        The model with its weights unchanged.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.dense(sr.load()).name
    'Dense'
    """
    from sparsity_report.weights.loading import load

    return Variant(name, weights if isinstance(weights, Weights) else load(weights), None, "dense")


def masked(pruning: Pruning, *, name: str | None = None) -> Variant:
    """Return a pruned model with its zeros kept in dense tensors.

    Parameters
    ----------
    pruning : Pruning
        From :func:`global_magnitude` or another pruning policy.
    name : str, optional
        Name of the variant; by default ``Masked30`` at 30 %, or ``Pruned49.9`` for
        :func:`existing_zeros`.

    Returns
    -------
    Variant
        The pruned model in the dense layout.

    Raises
    ------
    SparsityReportError
        The argument is not a pruning.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.masked(sr.global_magnitude(sr.load(), sparsity=0.3)).name
    'Masked30'
    """
    return _pruned(pruning, "masked", name)


def csr(pruning: Pruning, *, name: str | None = None) -> Variant:
    """Return a pruned model with its prunable linears stored as CSR.

    A matrix that the model does not apply as ``nn.Linear`` or ``Conv1D`` stays masked, is counted
    as such, and is named in ``study.notes``.

    Parameters
    ----------
    pruning : Pruning
        From :func:`global_magnitude` or another pruning policy.
    name : str, optional
        Name of the variant; ``CSR30`` at 30 % by default.

    Returns
    -------
    Variant
        The pruned model in the CSR layout.

    Raises
    ------
    SparsityReportError
        The argument is not a pruning.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.csr(sr.global_magnitude(sr.load(), sparsity=0.3)).name
    'CSR30'
    """
    return _pruned(pruning, "csr", name)


def without_experts(kept: KeptExperts, *, name: str | None = None) -> Variant:
    """Return a mixture of experts with the kept experts alone.

    The routers lose the rows of removed experts, and the configuration gets the new number. No
    file is written: the variant reads the kept tensors from the files of the whole model, also
    packed ones. It can be counted, run and pruned like a model that was saved so.

    Parameters
    ----------
    kept : KeptExperts
        From :func:`reap` or :func:`read_experts`, of a safetensors checkpoint or a GGUF model on
        this disk, with equally many experts in each module.
    name : str, optional
        Name of the variant; by default ``REAP6of8``, ``Random6of8Seed1``, or ``Experts6of8`` for
        a list from elsewhere.

    Returns
    -------
    Variant
        The smaller model in the dense layout.

    Raises
    ------
    SparsityReportError
        The weights are from another source, modules or groups would keep unequal numbers of
        experts, or tensors do not show which experts they belong to.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import sparsity_report as sr
    >>> import transformers
    >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
    >>> with TemporaryDirectory() as folder:
    ...     transformers.MixtralForCausalLM(config).save_pretrained(folder)
    ...     fewer = sr.without_experts(sr.KeptExperts(sr.load(folder), {0: [0, 2, 3]}))
    ...     fewer.name, fewer.weights.configuration()["num_local_experts"]
    ('Experts3of4', 3)
    """
    from sparsity_report.weights.sources.fewer_experts import keep_experts

    if not isinstance(kept, KeptExperts):
        raise SparsityReportError(
            "without_experts: needs kept experts such as reap(weights, keep=6), not "
            f"{type(kept).__name__}"
        )
    model = f"{kept.weights.name} {kept.label}"
    weights = keep_experts(kept.weights, kept.kept, kept.counts, model)
    method, _, seed = kept.method.partition(", seed ")
    prefix = _PREFIXES.get(method, method.title())
    suffix = f"Seed{seed}" if seed else ""
    return Variant(name or f"{prefix}{kept.label}{suffix}", weights, None, "dense", kept)


def variant_notes(variants: Iterable[Variant]) -> list[str]:
    """Return notes on removed experts, once for each number, and on the basis of choices."""
    groups, notes = defaultdict[tuple[Weights, int], list[Variant]](list), list[str]()
    for variant in variants:
        if kept := variant.kept:
            groups[kept.weights, kept.removed].append(variant)
            if basis := kept.basis:
                source = say("note.expert_source", name=basis.name, fingerprint=basis.fingerprint)
                notes.append(source if basis.windows is None else basis.note)
        if variant.pruning and variant.pruning.basis:
            notes.append(variant.pruning.basis.note)
    removals = []
    for (weights, removed), members in groups.items():
        lists = [o.kept for o in members if o.kept]
        counts, methods = lists[0].counts, [*dict.fromkeys(each.method for each in lists)]
        names = {"variants": [o.name for o in members], "model": weights.name, "methods": methods}
        figures = {"removed": removed, "count": sum(counts.values()), "modules": len(counts)}
        removals.append(say("note.experts_removed", **names, **figures))
    return [*removals, *notes]


def csr_note(weights: Weights) -> str | None:
    """Return a note that names the matrices a CSR variant keeps masked; None without any."""
    names, prunable = csr_parameters(weights), weights.prunable
    if not (kept := [p.name for p in prunable if p.name not in names]):
        return None
    return say("note.csr_kept_masked", count=len(kept), all=len(prunable), names=kept)


def materialized(variants: Sequence[Variant]) -> Iterator[tuple[Variant, nn.Module]]:
    """Yield variants as runnable models in evaluation mode, opening each checkpoint once."""
    from sparsity_report.weights.anatomy.parameter_places import copied

    opened: dict[Weights, nn.Module] = {}
    for number, variant in enumerate(variants, 1):
        weights = variant.weights
        base = opened.pop(weights, None) or weights.module()
        if any(later.weights is weights for later in variants[number:]):
            opened[weights] = copied(base)
        yield variant, variant.module(base).eval()


def analyze_layers(
    model: nn.Module, label: str, *, convention: str = "standard"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Count the zeros of a module in memory, per layer and per group.

    Parameters
    ----------
    model : nn.Module
        A model, with ``LinearCSR`` layers and pruning masks or without.
    label : str
        Content of the column ``variant``.
    convention : {"standard", "notebook"}
        The convention of counting, see :func:`compare`. With ``"notebook"``, all linear layers but
        the output head are prunable.

    Returns
    -------
    layers : pandas.DataFrame
        One row per module that owns parameters.
    groups : pandas.DataFrame
        The sums per group.

    Examples
    --------
    >>> from torch import nn
    >>> layers, groups = analyze_layers(nn.ModuleDict({"fc1": nn.Linear(3, 2)}), "Dense")
    >>> layers[["module_name", "total", "flops_per_token"]].values.tolist()
    [['fc1', 8, 12]]
    """
    from sparsity_report.weights.sources.memory import ModuleWeights

    blacklist = ("lm_head",) if convention == "notebook" else None
    weights = ModuleWeights(model, ReaderOptions(blacklist=blacklist))
    layers = Variant(label, weights, None, "dense").layers(convention)
    return layers, group_frame(layers)


def params_size_and_sparsity(model: nn.Module) -> dict[str, float]:
    """Return the size and sparsity of the parameters of a module in memory.

    Parameters
    ----------
    model : nn.Module
        A model; tied tensors count once.

    Returns
    -------
    dict of str to float
        ``nonzero`` and ``total`` elements, ``sparsity`` as a fraction of 1, and ``size_mb``, the
        size as dense tensors in units of 2²⁰ bytes.

    Raises
    ------
    SparsityReportError
        A parameter is on the meta device, so its values are unknown.

    Examples
    --------
    >>> from torch import nn
    >>> params_size_and_sparsity(nn.Linear(1024, 256, bias=False))["size_mb"]
    1.0
    """
    from sparsity_report.weights.sources.memory import ModuleWeights

    weights = ModuleWeights(model)
    counts = count_weights(weights)
    stored = list(weights.stored)
    if unknown := [p.name for p in stored if not p.known]:
        raise SparsityReportError(
            f"{weights.name}: {unknown[0]} is on the meta device and has no values to count; load "
            "its values first"
        )
    total = sum(p.total for p in stored)
    nonzero = sum(counts[p.name].nonzero for p in stored)
    return {
        "nonzero": nonzero,
        "total": total,
        "sparsity": zero_share(total, nonzero) or 0.0,
        "size_mb": sum(p.total * p.itemsize for p in stored) / 2**20,
    }


def variant_row(
    variant: Variant, counts: Mapping[str, Magnitudes], digest: str, context: int | None
) -> dict[str, object]:
    """Return the row of a variant in the table ``variants``."""
    pruning, basis, weights = variant.pruning, variant.basis, variant.weights
    zeros = sum(p.total - counts[p.name].nonzero for p in weights.prunable) if pruning else None
    at_threshold, spared = (pruning.ties if pruning else None) or (None, None)
    return {
        "variant": variant.name,
        "layout": variant.layout,
        "model": weights.name,
        "architecture": weights.architecture,
        "source": weights.source,
        "fingerprint": digest,
        "method": pruning.method if pruning else None,
        "asked_sparsity": pruning.target if pruning else None,
        "zeros_before": zeros,
        "pruned": pruning.pruned if pruning else None,
        "threshold": pruning.threshold if pruning else None,
        "attention_width": weights.attention_width,
        "attention_flops_per_token": weights.attention_flops(context),
        "basis": writable(basis.name) if basis else None,
        "basis_fingerprint": basis.fingerprint if basis else None,
        "basis_windows": basis.windows if basis else None,
        "basis_window": basis.window if basis else None,
        "at_threshold": at_threshold,
        "spared": spared,
        "expert_score": variant.kept.method if variant.kept else None,
    }


def fingerprint(weights: Weights, counts: Mapping[str, Magnitudes]) -> str:
    """Return 16 hexadecimal digits that identify counted weights.

    They begin the SHA-256 of names, shapes, dtypes, nonzeros and magnitude histograms, so they do
    not depend on file format or sharding.
    """
    digest = hashlib.sha256()
    for p in weights.stored:
        counted = counts.get(p.name)
        nonzero = -1 if counted is None else counted.nonzero
        digest.update(repr((p.name, p.shape, p.dtype, nonzero)).encode())
        if counted is not None and counted.values.size:
            digest.update(counted.values.astype("<f8", copy=False).data)
            digest.update(counted.counts.astype("<i8", copy=False).data)
    return digest.hexdigest()[:16]


def _converted(model: nn.Module, parameters: Collection[Parameter]) -> nn.Module:
    from torch import nn

    from sparsity_report.sparse.csr_swap import convert_linears_to_csr_
    from sparsity_report.sparse.linear_csr import convert_experts_to_csr_
    from sparsity_report.weights.anatomy.parameter_places import locate, put_, value, walk

    places, linears = locate(walk(model)), []
    for p in parameters:
        module, leaf = places[p.name]
        if len(p.shape) == 3:
            convert_experts_to_csr_(module, leaf)
        else:
            put_(module, leaf, value(module, leaf))  # sparse layouts such as 2:4 become dense first
            linears.append(module)
    # The model itself may be one linear layer, which only its parent can replace.
    parent = nn.ModuleDict({"model": model})
    convert_linears_to_csr_(parent, linears)
    model = parent["model"]
    # Other implementations need all experts in one tensor.
    if hasattr(model, "set_experts_implementation") and any(len(p.shape) == 3 for p in parameters):
        cast(Any, model).set_experts_implementation("eager")
    return model


def listed(function: str, variants: object) -> list[Variant]:
    """Return one variant or several as a list; refuse other values and say how to wrap them."""
    chosen: list[Any] = list(variants) if isinstance(variants, Iterable) else [variants]
    for each in chosen:
        if not isinstance(each, Variant):
            raise SparsityReportError(
                f"{function}: a {type(each).__name__} is not a variant; wrap it: "
                "sr.masked(pruning), sr.csr(pruning) or sr.dense(weights)"
            )
    return chosen


def _pruned(pruning: Pruning, layout: str, name: str | None) -> Variant:
    if not isinstance(pruning, Pruning):
        raise SparsityReportError(
            f"{layout}: needs a pruning such as global_magnitude(weights, sparsity=0.3), not "
            f"{type(pruning).__name__}; give an already-pruned model to dense()"
        )
    prefix = "CSR" if layout == "csr" else pruning.policy.prefix
    return Variant(name or f"{prefix}{pruning.label}", pruning.weights, pruning, layout)
