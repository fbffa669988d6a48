"""Runtimes that use, run as dense or refuse the weights of each variant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from sparsity_report.counting.n_m_patterns import Pattern, parse_pattern
from sparsity_report.sparse.runtime_support import RUNTIMES, layouts_of
from sparsity_report.study.derived.existing_zeros import n_m_positions
from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import EXISTING

if TYPE_CHECKING:
    from sparsity_report.study.derived.facts import Facts

_COLUMNS = ("variant", "layout", "runtime", "verdict", "version", "note", "source", "looked_at")
_SPARSE_TENSOR_CORES = Pattern(2, 4)


def runtime_frame(facts: Facts) -> pd.DataFrame:
    """Return one row per variant, layout of its weights and runtime of the table.

    Returns
    -------
    pandas.DataFrame
        As :attr:`sparsity_report.Study.runtimes`.
    """
    rows = [
        {"variant": row["variant"], **RUNTIMES[runtime].cells[layout]._asdict()}
        for row in records(facts.study.variants)
        for layout in _layouts(facts, row)
        for runtime in RUNTIMES
    ]
    return pd.DataFrame(rows, columns=[*_COLUMNS])


def _layouts(facts: Facts, row: dict[str, Any]) -> tuple[str, ...]:
    variant, method = row["variant"], row["method"]
    is_opened = pd.isna(method) or method == EXISTING
    share = facts.total(variant, "sparsity_prunable") or 0.0
    pruned = {name for names in facts.already_pruned.values() for name in names}
    measured = n_m_positions(facts.patterns(variant))
    asked = "" if is_opened else method
    pattern = parse_pattern(measured.figures["pattern"] if measured else asked)
    # Without patterns, zeros of an opened model may be 2:4.
    is_unclear = is_opened and pattern is None and facts.study.patterns is None and share >= 0.5
    return layouts_of(
        facts.packings(variant) if is_opened else (),
        is_gguf=is_opened and row["source"] == "gguf",
        is_csr=row["layout"] == "csr",
        has_zeros=not is_unclear and (variant in pruned if is_opened else share > 0),
        is_2_4=pattern is not None and pattern.implies(_SPARSE_TENSOR_CORES),
        is_uneven=_is_uneven(facts.layers(variant)),
    )


def _is_uneven(layers: pd.DataFrame) -> bool:
    """Return whether one projection has different shapes in different blocks."""
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for row in records(layers.loc[layers["block"].notna(), ["module_name", "block", "shape"]]):
        words = (word for word in row["module_name"].split(".") if word != str(row["block"]))
        shapes.setdefault(".".join(words), set()).add(tuple(row["shape"]))
    return any(len(each) > 1 for each in shapes.values())
