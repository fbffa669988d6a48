"""Magnitudes of the weights of layers."""

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.weights.weights import Weights


def module_magnitudes(weights: Weights) -> dict[str, Magnitudes]:
    """Return the magnitudes of each module's prunable weights before pruning, by module."""
    counted, modules = count_weights(weights), {}
    for module in weights.modules:
        parts = [counted[p.name] for p in module.parameters if p.prunable and p.known]
        if parts:
            modules[module.name] = sum(parts[1:], parts[0])
    return modules
