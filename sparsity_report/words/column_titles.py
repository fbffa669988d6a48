"""Titles of the columns of tables.

The catalogue holds the title of a column under ``column.`` and its name, but for the columns here,
which share a text with something else.
"""

from __future__ import annotations

from sparsity_report.words.languages import spoken

_SHARED = {
    "variant": "label.variant",
    "layout": "label.layout",
    "module_name": "column.module",
    "block": "kind.block",
    "group": "label.group",
    "shape": "label.shape",
    "total": "quantity.parameters",
    "nonzero": "label.nonzero",
    "sparsity": "label.sparsity",
    "weight_total": "label.weights",
    "flops_per_token": "metric.flops_per_token",
    "active_total": "quantity.active_parameters_per_token",
    "stored_bytes": "quantity.stored_bytes",
    "prunable_total": "column.prunable_weights",
    "sparsity_prunable": "label.prunable_zeros",
    "bytes": "label.bytes",
    "ratio": "label.bytes_ratio",
    "expert": "kind.expert",
    "n_m_share": "column.n_m_compliance",
    "tokens": "label.tokens",
    "realised_speedup": "label.realised_speed_up",
    "crossover_sparsity": "label.csr_crossover_sparsity",
    "dense_seconds": "layout.dense",
    "csr_seconds": "layout.csr",
    "speedup": "label.speed_up",
    "perplexity": "label.perplexity",
    "nll": "explorer.unit_nats_per_token",
    "part": "label.part",
    "limited": "column.partial_run",
    "iou": "pair.metric_zeros_iou_note",
    "weights": "label.weights_removed",
    "parameters": "column.removed_parameters",
    "before": "label.before",
    "after": "label.after",
    "share": "column.removed_share",
    "of": "label.of_total",
}


def title_key(name: str) -> str:
    """Return the key of a column's title in the catalogue."""
    return _SHARED.get(name, f"column.{name}")


def title(name: str) -> str:
    """Return the title of a column, or the words of its name if it has none.

    Examples
    --------
    >>> title("stored_bytes"), title("sparsity_prunable"), title("own_figure")
    ('stored bytes', 'zeros of the prunable weights', 'own figure')
    """
    return spoken().sentences.get(title_key(name), name.replace("_", " "))


def head(name: str) -> str:
    """Return the title of a column as the head of a table, with a capital first.

    Examples
    --------
    >>> head("stored_bytes")
    'Stored bytes'
    """
    text = title(name)
    return text[:1].upper() + text[1:]
