"""Choice of the experts that a model keeps: by REAP's saliency, by frequency or by magnitude."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sparsity_report.counting.bit_statistics import in_runs, matrix_places
from sparsity_report.counting.kept_experts import (
    KeptExperts,
    expert_groups,
    expert_stacks,
    find_module,
    routed_modules,
)
from sparsity_report.counting.moments import Moments
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Basis
from sparsity_report.deferred import torch
from sparsity_report.errors import SparsityReportError, explained
from sparsity_report.measure.calibration import Calibration, CalibrationOptions, calibrated
from sparsity_report.measure.texts import Text
from sparsity_report.weights.tensor_slices import pieces
from sparsity_report.weights.weights import Module, Weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Column of a calibration, and name among the observations of REAP's code, by score.
_COLUMNS = {"reap": ("saliency", "reap"), "frequency": ("tokens", "expert_frequency")}


# Weights in memory at a time.
_RUN = 2**20


@with_bar("scoring experts", unit="tensor")
def reap(
    weights: Weights,
    calibration: Text | Calibration | Mapping[Any, Any] | None = None,
    *,
    keep: float,
    score: str = "reap",
    progress: Progress | None = None,
    **options: Unpack[CalibrationOptions],
) -> KeptExperts:
    """Keep the experts of each module with the highest scores.

    REAP (Lasby et al. 2025, https://arxiv.org/abs/2510.13999) scores an expert by the mean of gate
    times ``‖f(x)‖₂`` over the tokens that the router sends to it. Frequency is the number of these
    tokens, a common baseline. Magnitude is the root mean square of the matrices of the expert and
    needs no text. Of equal scores the first experts by position are kept. An expert without tokens
    scores 0.

    A router that chooses groups first (``n_group``) keeps equally many experts of each.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    calibration : Calibration, text or mapping, optional
        Text of :func:`calibrate`, or its result for several lists from one pass. Observations of
        the authors' code of REAP are a mapping from blocks to scores, which
        ``torch.load(path, weights_only=True)`` returns.
    keep : int or float
        Number of experts to keep in each module, or their share: ``6`` or ``0.75``. A share is
        rounded to whole experts, half to even, and to whole groups.
    score : {"reap", "frequency", "magnitude"}
        The score.
    progress : callable, optional
        Called with work done, work in total and a name.
    **options
        ``tokenizer, windows, window``, see :func:`calibrate`.

    Returns
    -------
    KeptExperts
        The list; no weight is changed.

    Raises
    ------
    SparsityReportError
        For the reasons of :func:`calibrate` and :class:`KeptExperts`; or `keep` or `score` is not
        valid.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import transformers
    >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
    >>> weights = sr.load(transformers.MixtralForCausalLM(config))
    >>> sr.reap(weights, keep=0.5, score="magnitude").label
    '2of4'
    """
    modules = routed_modules(weights)
    numbers = {name: _number(weights, module, keep) for name, module in modules.items()}
    if score not in {*_COLUMNS, "magnitude"}:
        raise SparsityReportError(f"score must be reap, frequency or magnitude, not {score!r}")
    basis: Basis | None = None
    use = calibration.experts if isinstance(calibration, Calibration) else None
    if score == "magnitude":
        if options or not (calibration is None or use is not None):
            raise SparsityReportError("score='magnitude' reads no text; leave the text out")
        scores = _magnitudes(weights, modules, progress)
    elif isinstance(calibration, Mapping):
        scores, basis = _observed(weights, calibration, _COLUMNS[score][1])
    else:
        calibration = calibrated(weights, calibration, progress, options)
        use, basis = calibration.experts, calibration.basis
        column = use[_COLUMNS[score][0]].fillna(0)
        scores = {str(name): rows.tolist() for name, rows in column.groupby(use["module_name"])}
    if missing := [name for name in modules if name not in scores]:
        raise weights.wrong(
            f"has no scores of the experts of {missing[0]}, whose router use is unknown; use "
            "score='magnitude'"
        )
    kept = {
        name: sorted(
            expert
            for group in expert_groups(module)
            for expert in sorted(group, key=lambda e: -scores[name][e])[: numbers[name]]
        )
        for name, module in modules.items()
    }
    return KeptExperts(weights, kept, score, basis, use)


def _number(weights: Weights, module: Module, keep: object) -> int:
    """Return how many experts are kept in each group of a module."""
    groups = expert_groups(module)
    count = sum(map(len, groups))
    if isinstance(keep, float) and 0 < keep <= 1:
        return round(keep * len(groups[0]))
    if type(keep) is not int or not 0 < keep <= count:
        raise SparsityReportError(
            f"keep={keep!r} is neither a number from 1 to {count:,}, the experts of {module.name}, "
            "nor a share above 0 and up to 1, such as 0.75; change it"
        )
    if keep % len(groups):
        raise weights.wrong(
            f"chooses from {len(groups):,} groups of experts in {module.name}, so keep={keep} "
            "cannot keep equally many of each; give a multiple"
        )
    return keep // len(groups)


def _magnitudes(
    weights: Weights, modules: Mapping[str, Module], progress: Progress | None
) -> dict[str, list[float]]:
    """Return the root mean square of the matrices of each expert, by module."""
    stacks = [(name, p) for name, o in modules.items() for p in o.parameters if p.experts > 1]
    sums = {name: [Moments() for _ in range(p.experts)] for name, p in stacks}
    for number, (name, p) in enumerate(stacks, 1):
        places = matrix_places(p.experts, p.total // p.experts, _RUN)
        runs = in_runs(pieces(weights.as_in_memory(p.name)), (n for *_, n in places), torch.cat)
        for (expert, *_), run in zip(places, runs, strict=True):
            sums[name][expert].add(run)
        if progress:
            progress(number, len(stacks), p.name)
        if any(math.isnan(each.squares) for each in sums[name]):
            raise SparsityReportError(f"{weights.name}: {p.name} holds NaN; repair the checkpoint")
    return {name: [math.sqrt(o.squares / o.count) for o in each] for name, each in sums.items()}


def _observed(
    weights: Weights, observations: Mapping[Any, Any], name: str
) -> tuple[dict[str, list[float]], Basis]:
    """Return the scores by module that REAP's code observed."""
    scores = {}
    for key, values in observations.items():
        module = find_module(weights, key, "observations")
        kinds = (LookupError, TypeError, ValueError)
        with explained(partial(_not_observed, key), *kinds):
            scores[module] = [float(each) for each in values[name]]
        if len(scores[module]) != (count := expert_stacks(weights)[module]):
            raise SparsityReportError(
                f"observations: block {key} has {len(scores[module]):,} scores, but {module} has "
                f"{count:,} experts; give those of {weights.name}"
            )
        if any(map(math.isnan, scores[module])):
            raise SparsityReportError(f"observations: block {key} has NaN; observe it again")
    digest = hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()
    return scores, Basis("observations", digest[:16])


def _not_observed(key: object, error: Exception) -> str:
    return f"observations: block {key}: {error!r}; give the observations of REAP's code"
