"""Choice of the experts that a model keeps: by REAP's saliency, frequency, magnitude or chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from sparsity_report.counting import kept_experts
from sparsity_report.counting.histogram import Moments
from sparsity_report.counting.kept_experts import KeptExperts, checked_stacks, expert_groups
from sparsity_report.counting.matrix_counts import matrix_blocks
from sparsity_report.counting.policies.random_policy import check_seed, random_words
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Calibration
from sparsity_report.counting.pruning_policies import CALIBRATED_SCORES, EXPERT_SCORES
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.matrix_direction import Matrix
from sparsity_report.weights.sources.gguf_imatrix import expert_tokens
from sparsity_report.weights.sources.model_paths import is_imatrix
from sparsity_report.weights.tensor_slices import pieces
from sparsity_report.weights.torch_extra import need_torch
from sparsity_report.weights.weights import Parameter, Weights

if TYPE_CHECKING:
    from sparsity_report.measure.calibration import CalibrationOptions
    from sparsity_report.measure.texts import Text

# Column of a calibration, and name among the observations of REAP's code, by score.
_COLUMNS = {"reap": ("saliency", "reap"), "frequency": ("tokens", "expert_frequency")}
# Names of llama.cpp's pull request 20454.
_LLAMA = {"expert_frequency": "activation_counts"}

# Weights in memory at a time.
_RUN = 2**20


@with_bar("scoring experts", unit="tensor")
def reap(
    weights: Weights,
    calibration: Text
    | Calibration
    | Mapping[int, Mapping[str, Any]]
    | Mapping[str, Any]
    | None = None,
    *,
    keep: float,
    score: str = "reap",
    seed: int = 0,
    progress: Progress | None = None,
    **options: Unpack[CalibrationOptions],
) -> KeptExperts:
    """Keep the experts of each module with the highest scores.

    REAP (Lasby et al. 2025, https://arxiv.org/abs/2510.13999) scores an expert by the mean of gate
    times ``‖f(x)‖₂`` over the tokens that the router sends to it. Frequency is the number of these
    tokens, a common baseline. Magnitude is the root mean square of the matrices of the expert and
    needs no text. Of equal scores the first experts by position are kept. An expert without tokens
    scores 0. Random scores are a baseline: word number i of NumPy's Philox generator, keyed by seed
    and module as in :func:`random_unstructured`, is the score of expert i.

    A router that chooses groups first (``n_group``) keeps equally many experts of each.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    calibration : Calibration, text or mapping, optional
        Text of :func:`calibrate`, or its result for several lists from one pass. Observations of
        the authors' code of REAP are a mapping from blocks to scores, which
        ``torch.load(path, weights_only=True)`` returns; so is ``expert_stats.json`` of llama.cpp's
        pull request 20454. The path of an imatrix that llama.cpp wrote as GGUF gives the tokens by
        expert for ``score="frequency"``, without torch.
    keep : int or float
        Number of experts to keep in each module, or their share: ``6`` or ``0.75``. A share is
        rounded to whole experts, half to even, and to whole groups.
    score : {"reap", "frequency", "magnitude", "random"}
        The score.
    seed : int
        Seed of random scores, 0 or more.
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
    stacks = checked_stacks(weights)
    numbers = {name: _number(name, expert_groups(p), keep) for name, p in stacks.items()}
    check_seed(seed)
    if score not in EXPERT_SCORES:
        raise SparsityReportError(f"score must be {' or '.join(EXPERT_SCORES)}, not {score!r}")
    basis, name = None, "observations"
    if score in CALIBRATED_SCORES and is_imatrix(calibration):
        path = Path(cast(str, calibration))
        if score != "frequency":
            raise SparsityReportError(f"{path}: an imatrix has no outputs; use score='frequency'")
        tokens, name = expert_tokens(path)
        key = _COLUMNS[score][1]
        calibration = {block: {key: counts} for block, counts in tokens.items()}
    method = f"random, seed {seed}" if score == "random" else score
    use = calibration.experts if isinstance(calibration, Calibration) else None
    if score not in CALIBRATED_SCORES:
        if options or not (calibration is None or use is not None):
            raise SparsityReportError(f"score={score!r} reads no text; leave the text out")
        scores = {o: random_words(seed, o, p.experts).tolist() for o, p in stacks.items()}
        if score == "magnitude":
            scores = _magnitudes(weights, stacks, progress)
    elif isinstance(calibration, Mapping):
        scores = _observed(weights, name, calibration, _COLUMNS[score][1])
        basis = kept_experts.digest_of(name, scores)
    else:
        need_torch(f"score={score!r}")
        from sparsity_report.measure.calibration import calibrated

        calibration = calibrated(weights, calibration, progress, options)
        use, basis = calibration.experts, calibration.basis
        column = use[_COLUMNS[score][0]].fillna(0)
        scores = {str(name): rows.tolist() for name, rows in column.groupby(use["module_name"])}
    if missing := [name for name in stacks if name not in scores]:
        raise weights.wrong(
            f"has no scores of the experts of {missing[0]}, whose router use is unknown; use "
            "score='magnitude'"
        )
    kept: dict[str, list[int]] = {name: [] for name in stacks}
    for name, number in numbers.items():
        for group in expert_groups(stacks[name]):
            kept[name] += sorted(group, key=lambda e: -scores[name][e])[:number]
    return KeptExperts(weights, kept, method, basis, use)


def _number(name: str, groups: Sequence[range], keep: object) -> int:
    """Return the number of experts kept in each group of a module."""
    most, step = sum(map(len, groups)), len(groups)
    if isinstance(keep, float) and 0 < keep <= 1:
        return round(keep * len(groups[0]))
    if type(keep) is int and keep in range(step, most + 1, step):
        return keep // step
    raise SparsityReportError(
        f"keep={keep!r} is neither a share such as 0.75 nor a number from {step:,} to {most:,} in "
        f"steps of {step:,}, for the experts of {name}; change it"
    )


def _magnitudes(
    weights: Weights, stacks: Mapping[str, Parameter], progress: Progress | None
) -> dict[str, list[float]]:
    """Return the root mean square of the matrices of each expert, by module."""
    sums = {name: [Moments() for _ in range(p.experts)] for name, p in stacks.items()}
    stored = kept_experts.routed_parameters(weights).items()
    matrices = [(name, p) for name, parameters in stored for p in parameters]
    for number, (name, p) in enumerate(matrices, 1):
        values = Matrix(p.total // p.experts, 1, p.experts)
        parts = pieces(weights.as_in_memory(p.name))
        for expert, _, run in matrix_blocks(parts, values, _RUN):
            sums[name][expert].add(run)
        if progress:
            progress(number, len(matrices), p.name)
        if any(math.isnan(each.squares) for each in sums[name]):
            raise SparsityReportError(f"{weights.name}: {p.name} holds NaN; repair the checkpoint")
    return {name: [math.sqrt(o.squares / o.count) for o in each] for name, each in sums.items()}


def _observed(
    weights: Weights, source: str, observations: Mapping[Any, Mapping[str, Any]], name: str
) -> dict[str, list[float]]:
    """Return the scores by module that REAP's code or llama.cpp observed."""
    scores, stacks = {}, checked_stacks(weights)
    with kept_experts.reading(source):
        for layer, values in observations.items():
            module = kept_experts.find_module(weights, layer)
            key = _LLAMA.get(name, name) if "activation_counts" in values else name
            scores[module] = [float(each) for each in values[key]]
            numbers = [score for score in scores[module] if not math.isnan(score)]
            if len(numbers) != (due := stacks[module].experts):
                raise ValueError(f"block {layer} has {len(numbers)} scores for {due} experts")
    return scores
