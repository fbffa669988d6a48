"""Prunings as values, the policies that make them, and the model after a pruning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsity_report.counting.count_cache import CacheFolder
from sparsity_report.counting.cuts import Cut, InputNorms, ThresholdCut
from sparsity_report.counting.histogram import Integers, Values
from sparsity_report.counting.n_m_patterns import Flags
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.pruning_policies import Policy
from sparsity_report.sparse.shares import ratio
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.weights import Parameter, Tokenizer, Weights
from sparsity_report.words.display_names import method_name
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True)
class Basis:
    """The source of a pruning besides the weights: a calibration text, or imported masks.

    Attributes
    ----------
    name : str
        Name of the text or the file.
    fingerprint : str
        Sixteen hexadecimal digits, a digest of the part that was read.
    windows, window : int or None
        Number of windows read from a text, and tokens per window.
    """

    name: str
    fingerprint: str
    windows: int | None = None
    window: int | None = None

    @property
    def note(self) -> str:
        """A note about the source."""
        key = "note.imported_masks" if self.windows is None else "note.calibrated"
        return say(key, **vars(self))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Norms of the inputs of the prunable matrices of a model on a text, and its router use.

    Parameters
    ----------
    weights : Weights
        The model.
    scales : mapping of str to InputNorms
        By parameter name: ``‖x‖₂`` of each input over all tokens in float64. A fused expert has
        the tokens that are routed to it.
    tokens : mapping of str to tuple of int
        By parameter name: number of tokens of each of its matrices.
    text : str
        Name of the text.
    fingerprint : str
        ``text_fingerprint`` of the text, see :func:`sparsity_report.perplexity`.
    windows : int
        Number of disjoint windows, from the start of the text.
    window : int
        Tokens of a window.
    experts : pandas.DataFrame
        One row per expert: ``module_name``, ``block``, ``expert`` (its number), ``tokens`` that
        routers sent to it, ``gate_mass`` (the sum of their gates), ``output_norm`` (the mean of
        its ``‖f(x)‖₂``) and ``saliency`` (the mean of gate times ``‖f(x)‖₂``, see :func:`reap`).
        The means are null for an expert without tokens. Empty for a model without experts.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> calibration = sr.calibrate(sr.load(), windows=2, window=16)
    >>> calibration.windows, calibration.window
    (2, 16)
    >>> set(calibration.tokens.values())
    {(32,)}
    """

    weights: Weights
    scales: Mapping[str, InputNorms]
    tokens: Mapping[str, tuple[int, ...]]
    text: str
    fingerprint: str
    windows: int
    window: int
    experts: pd.DataFrame

    @property
    def basis(self) -> Basis:
        """Description of the calibration for a pruning.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> calibration = sr.calibrate(sr.load(), windows=2, window=16)
        >>> calibration.basis.windows
        2
        """
        return Basis(self.text, self.fingerprint, self.windows, self.window)

    def __repr__(self) -> str:
        return (
            f"<Calibration of {self.weights.name} on {self.windows:,} windows of "
            f"{self.window:,} tokens of {self.text}>"
        )


class Ladder(NamedTuple):
    """Weights that a policy leaves in each prunable module at several sparsities.

    Attributes
    ----------
    sparsities : sequence of float
    left, slack : numpy.ndarray
        Nonzero weights, and the most weights by which they may be wrong, of shape (modules,
        sparsities).
    """

    sparsities: Sequence[float]
    left: Integers
    slack: Integers


class ModuleCounts(NamedTuple):
    """Counts of the prunable modules of a model, from which the ladders of policies follow.

    Attributes
    ----------
    ladder : Ladder
        That of global magnitude pruning, from the histograms.
    totals : numpy.ndarray
        Weights of each module.
    columns : numpy.ndarray
        Inputs of its matrices.
    tensors : (numpy.ndarray, numpy.ndarray, numpy.ndarray) or None
        Weights and nonzeros of each prunable tensor, and the position of its module; None if a
        module has several and their sizes are unknown.
    """

    ladder: Ladder
    totals: Integers
    columns: Integers
    tensors: tuple[Integers, Integers, Integers] | None

    @property
    def zeros(self) -> int:
        """Prunable weights that were zero before pruning."""
        return int((self.totals - self.ladder.left[:, 0]).sum())


class Inputs(NamedTuple):
    """A calibration, and options of counting, see :func:`global_magnitude`."""

    calibration: Calibration | None = None
    progress: Progress | None = None
    executor: Executor | None = None
    cache: CacheFolder | None = None

    @property
    def counting(self) -> dict[str, Any]:
        """The options of counting by name."""
        return {"progress": self.progress, "executor": self.executor, "cache": self.cache}


@dataclass(frozen=True, repr=False)
class Pruning:
    """A choice of weights to prune; the model is not modified.

    Parameters
    ----------
    weights : Weights
        The model to prune.
    sparsity : float
        Requested share of the prunable weights, or their share of zeros without a request.
    policy : Policy
        The rule that chose the weights, with its settings.
    cuts : mapping of str to Cut
        Cuts by parameter name.
    basis : Basis, optional
        Calibration text or masks.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    >>> pruning.label, pruning.pruned
    ('50', 393216)
    """

    weights: Weights
    sparsity: float
    policy: Policy
    cuts: Mapping[str, Cut]
    basis: Basis | None = None

    def __repr__(self) -> str:
        name, method = short_name(self.weights.name), short_name(method_name(self.method))
        total, pruned = sum(p.total for p in self.weights.prunable), self.pruned
        threshold = say("repr.no_single_threshold")
        if self.threshold is not None:
            threshold = say("repr.pruning_threshold", threshold=self.threshold)
        lines = [
            say("repr.pruning_target", name=name, method=method, sparsity=self.sparsity),
            say("repr.pruned_weights", pruned=pruned, total=total, share=ratio(pruned, total)),
            threshold,
        ]
        return "\n".join(lines)

    @property
    def method(self) -> str:
        """Name of the policy, or its pattern, with settings such as ``seed 0`` after commas.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> sr.random_unstructured(sr.load(), sparsity=0.25).method
        'random, seed 0'
        """
        return self.policy.method

    @property
    def pruned(self) -> int:
        """Number of pruned weights, including those that were zero before.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.25)
        >>> pruning.pruned
        196608
        """
        return sum(cut.pruned for cut in self.cuts.values())

    @property
    def changed(self) -> frozenset[str]:
        """Names of the parameters whose values may change.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> sr.existing_zeros(sr.load()).changed
        frozenset()
        """
        return frozenset(name for name, cut in self.cuts.items() if cut.changes)

    @property
    def target(self) -> float | None:
        """The requested share; None if masks or zeros determine it.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.25)
        >>> pruning.target
        0.25
        """
        return self.sparsity if self.policy.has_target else None

    @property
    def threshold(self) -> float | None:
        """Largest pruned magnitude; None without a common threshold.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.25)
        >>> name = "model.decoder.layers.0.fc1.weight"
        >>> kept = pruning.weights.array(name)[pruning.mask(name)]
        >>> bool(abs(kept).min() >= pruning.threshold)
        True
        """
        thresholds = {getattr(cut, "threshold", None) for cut in self.cuts.values()}
        has_one = self.policy.has_target and len(thresholds) == 1
        return thresholds.pop() if has_one else None

    @property
    def ties(self) -> tuple[int, int] | None:
        """Weights exactly on the threshold, and those of them that are kept; None without one.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> sr.global_magnitude(sr.load(), sparsity=0.25).ties
        (1, 0)
        """
        cuts = [cut for cut in self.cuts.values() if isinstance(cut, ThresholdCut)]
        if not self.threshold:
            return None
        return sum(cut.ties + cut.spared for cut in cuts), sum(cut.spared for cut in cuts)

    @property
    def label(self) -> str:
        """Suffix in the names of variants: ``30``, ``30Layerwise``, ``2:4``, ``50Wanda``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.25)
        >>> pruning.label
        '25'
        """
        return self.policy.label(self.sparsity)

    def mask(self, name: str) -> Flags:
        """Return a mask of parameter `name`: True for kept weights.

        Parameters
        ----------
        name : str
            Name of a prunable parameter.

        Returns
        -------
        numpy.ndarray
            Of bool, in the shape of the parameter.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.25)
        >>> sum(int((~pruning.mask(name)).sum()) for name in pruning.cuts) == pruning.pruned
        True
        """
        array, cut = self.weights.array(name), self.cuts.get(name)
        return cut.mask(array) if cut else np.ones(array.shape, dtype=bool)

    def apply_(self, model: nn.Module) -> nn.Module:
        """Set the pruned weights of `model`, an unmasked copy, to zero in place.

        Parameters
        ----------
        model : nn.Module
            A model with the parameters of the weights, such as ``weights.module()``.

        Returns
        -------
        nn.Module
            The same model.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.25)
        >>> model = pruning.apply_(pruning.weights.module())
        >>> name, mask = "model.decoder.layers.0.fc1.weight", pruning.mask
        >>> bool((model.get_parameter(name).detach().numpy()[~mask(name)] == 0).all())
        True
        """
        from sparsity_report.weights.anatomy.parameter_places import locate, put_, value, walk
        from sparsity_report.weights.torch_tensors import to_array, to_tensor

        places = locate(walk(model))
        for name in self.changed:
            module, leaf = places[name]
            tensor = value(module, leaf)
            array = to_array(tensor)
            self.cuts[name].apply_(array)
            put_(module, leaf, tensor.copy_(to_tensor(array)))
        return model


class PrunedWeights(Weights):
    """The weights of a model after a pruning, with one tensor at a time in memory."""

    def __init__(self, pruning: Pruning, name: str) -> None:
        base, changed = pruning.weights, pruning.changed

        def written(p: Parameter) -> Parameter:
            return replace(p, packing="", file_bytes=None) if p.name in changed else p

        modules = tuple(module.changed(written) for module in base.modules)
        attributes = {each.name: getattr(base, each.name) for each in fields(Weights)}
        super().__init__(**attributes | {"name": name, "modules": modules})
        self._pruning = pruning

    def array(self, name: str) -> Values:
        """Return the values of a parameter, with pruned ones set to zero."""
        array = self._pruning.weights.array(name)
        if name in self._pruning.changed:
            array = array.copy()
            self._pruning.cuts[name].apply_(array)
        return array

    def as_in_memory(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter in slices, those of the base if nothing is pruned."""
        if name in self._pruning.changed:
            yield from super().as_in_memory(name)
        else:
            yield from self._pruning.weights.as_in_memory(name)

    def gives_some(self, name: str) -> bool:
        """Return whether a parameter is not pruned and the base can read parts of it."""
        return name not in self._pruning.changed and self._pruning.weights.gives_some(name)

    def tokenizer(self) -> Tokenizer:
        """Open the tokenizer of the base."""
        return self._pruning.weights.tokenizer()

    def module(self) -> nn.Module:
        """Return a runnable copy of the base, pruned."""
        return self._pruning.apply_(self._pruning.weights.module())
