"""Zeros of a model and N:M patterns of its prunable matrices, from one pass over its values."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparsity_report.counting.bit_statistics import bit_statistics
from sparsity_report.counting.n_m_patterns import KNOWN, find_pattern
from sparsity_report.findings.rules.prunable_tensors import model_tensors
from sparsity_report.weights.outline import Outline

# Threads that count tensors: the smallest machines have two cores.
_THREADS = 2


def model_zeros(outline: Outline) -> dict[str, Any]:
    """Return the zeros of each group, and the number of prunable matrices in all and by pattern.

    A packed weight is zero if it stands for exactly zero. A matrix has the sparsest pattern that
    99 % of its groups keep; it is left out if the direction of its inputs is not known.
    """
    tensors = [*model_tensors(outline)]
    with ThreadPoolExecutor(_THREADS) as pool:
        counted = pool.map(lambda t: bit_statistics(t.entry, t.matrix, KNOWN), tensors)
        zeros, patterns = Counter[str](), Counter[str]()
        for tensor, counts in zip(tensors, counted, strict=True):
            zeros[tensor.parameter.group] += counts.zeros
            if tensor.matrix and tensor.is_settled:
                patterns[str(find_pattern(counts.complying, counts.total) or "")] += 1
    matrices = patterns.total()
    del patterns[""]
    return {"groups": dict(zeros), "matrices": matrices, "patterns": dict(patterns)}
