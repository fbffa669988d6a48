"""Wanda, which prunes by magnitude times input norm, and the allocation of OWL."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from sparsity_report.counting.allocation import NAME, Allocation, compute_quotas
from sparsity_report.counting.cuts import (
    InputNorms,
    check_n_m,
    cut_groups,
    cut_rows,
    map_rows,
    score_blocks,
)
from sparsity_report.counting.policies.magnitude_policies import prunable_counts
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.pruning import Calibration, Pruning
from sparsity_report.counting.pruning_policies import Wanda, check_sparsity
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.shares import zero_share
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.weights import Module, Weights

if TYPE_CHECKING:
    import pandas as pd

# The paper's M and λ.
OUTLIER, RANGE = 5.0, 0.08


def prune_by_scores(
    weights: Weights,
    sparsity: float | None,
    calibrate: Callable[[], Calibration | None],
    n_m: tuple[int, int] | None,
    allocation: Allocation,
    progress: Progress | None,
) -> Pruning:
    """Prune a model by scores, see :func:`wanda`; refuse contradictory settings before."""
    if n_m is not None:
        pattern = check_n_m(weights, *n_m)
        level = zero_share(pattern.m, pattern.n) or 0.0
        if sparsity not in {None, level} or allocation is not None:
            raise SparsityReportError(
                f"n_m={n_m} prunes {level:g} of every layer; leave sparsity= and allocation= out"
            )
    elif allocation is None:
        check_sparsity(sparsity)
    calibration = _rankable(weights, calibrate)
    scales, basis = calibration.scales, calibration.basis
    if n_m is not None:
        cuts = cut_groups(weights, scales, pattern, progress)
        return Pruning(weights, level, Wanda(pattern), cuts, basis)
    if isinstance(allocation, str) and allocation == "owl":
        level = check_sparsity(sparsity)
        allocation = allocate_by_outliers(weights, level, lambda: calibration, progress=progress)
    shares = compute_quotas(weights, sparsity, allocation)
    cuts = cut_rows(weights, scales, shares.counts, progress)
    return Pruning(weights, shares.sparsity, Wanda(allocation=shares.name), cuts, basis)


def allocate_by_outliers(
    weights: Weights,
    sparsity: float,
    calibrate: Callable[[], Calibration | None],
    m: float = OUTLIER,
    lam: float = RANGE,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the shares of modules by their outliers, see :func:`owl`."""
    import pandas as pd

    level = check_sparsity(sparsity)
    for option, number in (("m", m), ("lam", lam)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
            raise SparsityReportError(f"{option}={number!r} is not a number above 0; change it")
    calibration = _rankable(weights, calibrate)
    modules = {mod: sum(p.total for p in mod.parameters if p.prunable) for mod in weights.modules}
    modules = {module: total for module, total in modules.items() if total}
    ratios = _outlier_ratios(calibration, modules, m, progress)
    shares = _stretched(weights.name, ratios, modules, level, lam)
    frame = pd.DataFrame(
        {
            "module_name": [module.name for module in modules],
            "block": pd.array([module.block for module in modules], dtype="Int64"),
            "weights": list(modules.values()),
            "outlier_ratio": pd.array([ratios.get(_block(o)) for o in modules], dtype="Float64"),
            "sparsity": [shares.get(_block(module), level) for module in modules],
        }
    )
    frame.attrs[NAME] = "owl"
    return frame


def _rankable(weights: Weights, calibrate: Callable[[], Calibration | None]) -> Calibration:
    """Return a calibration of weights that can be ranked; refuse one with idle experts."""
    prunable_counts(weights)
    calibration = calibrate()
    assert calibration is not None
    for name, tokens in calibration.tokens.items():
        if 0 in tokens:
            raise SparsityReportError(
                f"{calibration.weights.name}: no token of the calibration text reached expert "
                f"{tokens.index(0)} of {name} ({tokens.count(0):,} of {len(tokens):,} got none), "
                "so its inputs are unknown; give a longer text"
            )
    return calibration


def _block(module: Module) -> str:
    """Return the name of the Transformer block of a module, empty outside blocks."""
    words = module.name.split(".")
    at = next((place for place, word in enumerate(words, 1) if word.isdecimal()), 0)
    return ".".join(words[:at])


def _outlier_ratios(
    calibration: Calibration, modules: Mapping[Module, int], m: float, progress: Progress | None
) -> dict[str, float]:
    """Return the share of outliers among the scores of each block."""
    weights = calibration.weights
    blocks = {p.name: _block(o) for o in modules if _block(o) for p in o.parameters if p.prunable}
    scales = {name: calibration.scales[name] for name in blocks}
    totals, outliers = Counter[str](), Counter[str]()
    sums = defaultdict[str, list[float]](list)
    work = {name: partial(_sum, scale=scale) for name, scale in scales.items()}
    for p, parts in map_rows(weights, work, progress):
        totals[blocks[p.name]] += p.total
        sums[blocks[p.name]] += parts
    limits = {block: m * math.fsum(parts) / totals[block] for block, parts in sums.items()}
    above = {
        name: partial(_above, scale=scale, limit=limits[blocks[name]])
        for name, scale in scales.items()
    }
    for p, counts in map_rows(weights, above, progress):
        outliers[blocks[p.name]] += sum(counts)
    return {block: outliers[block] / total for block, total in totals.items()}


def _sum(part: Slice, scale: InputNorms, first: int) -> float:
    return math.fsum(float(scores.sum()) for _, scores, _ in score_blocks(part, scale, first))


def _above(part: Slice, scale: InputNorms, limit: float, first: int) -> int:
    return sum(int((scores > limit).sum()) for _, scores, _ in score_blocks(part, scale, first))


def _stretched(
    name: str, ratios: Mapping[str, float], modules: Mapping[Module, int], level: float, lam: float
) -> dict[str, float]:
    """Return the sparsity of each block."""
    if not ratios:
        raise SparsityReportError(
            f"{name} has no prunable weights in numbered blocks, which OWL needs; use wanda"
        )
    low, high = min(ratios.values()), max(ratios.values())
    room = 2 * lam / (high - low) if high > low else 0.0
    density = {block: room * (ratio - low) for block, ratio in ratios.items()}
    sizes = {module: total for module, total in modules.items() if _block(module)}
    mean = math.fsum(density[_block(o)] * n for o, n in sizes.items()) / sum(sizes.values())
    shares = {block: level - (each - mean) for block, each in density.items()}
    for block, share in shares.items():
        if not 0 <= share <= 1:
            raise SparsityReportError(
                f"OWL with lam={lam:g} would prune {share:.2%} of {block} at {level:.2%} overall; "
                "use a smaller lam="
            )
    return shares
