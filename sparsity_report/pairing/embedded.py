"""Which channels of the width and which tokens are left of a base, as the embedding tells."""

from __future__ import annotations

import numpy as np

from sparsity_report.pairing.alignment import WHOLE, Alignment, apart, away, check, fewer, matched
from sparsity_report.pairing.look import glimpse, matrix, rows_of, units
from sparsity_report.pairing.roles import Part

# Tokens whose values tell one channel of the width from another, and of those that are looked at.
_TOKENS, _SOME = 2048, 64
# Share of a few channels, or tokens, that are in other places before all are read.
_MANY = 0.1


def width_and_vocabulary(found: Alignment) -> None:
    """Match channels of the width, then tokens in the width that both have."""
    one, other = (
        side.at("", None).get(("embed", "weight")) for side in (found.before, found.after)
    )
    if one is None or other is None or not (one.columns and other.columns):
        return
    _width(found, one, other)
    _vocabulary(found, one, other)


def _width(found: Alignment, one: Part, other: Part) -> None:
    (was, width), (now, narrower) = one.parameter.shape, other.parameter.shape
    if width < narrower:
        fewer(found, "width", one.module.name, width, narrower)
    # Tokens are in one order, also where some were cut off at the end.
    most = min(was, now)
    if width == narrower and _columns_there(found, one, other, most):
        return
    sides = ((found.before, one), (found.after, other))
    tables = [
        [matrix(side.weights, part, most=min(most, _TOKENS)).float().T.contiguous()]
        for side, part in sides
    ]
    match = matched(*tables)
    if not match.is_identity:
        found.units["width", WHOLE] = check(found, match, "width", one.module.name)


def _columns_there(found: Alignment, one: Part, other: Part, most: int) -> bool:
    """Whether a few tokens have, channel by channel, what they had."""
    tokens = np.unique(np.linspace(0, most - 1, _SOME).round().astype(np.int64))
    inputs = np.arange(one.parameter.shape[1])
    sides = ((found.before.weights, one), (found.after.weights, other))
    tables = [glimpse(weights, part, None, tokens, inputs) for weights, part in sides]
    if tables[0] is None or tables[1] is None:
        return True
    return apart(tables[0].T, tables[1].T) < _MANY


def _vocabulary(found: Alignment, one: Part, other: Part) -> None:
    was, now = one.parameter.shape[0], other.parameter.shape[0]
    fewer(found, "vocabulary", one.module.name, was, now)
    if was == now and away(found, (one, other)) < _MANY:
        return
    base, stayed = rows_of(found.before.weights, one), rows_of(found.after.weights, other)
    columns = found.columns
    match = matched((units(rows, 1, columns) for rows in base), (units(rows, 1) for rows in stayed))
    if not match.is_identity:
        found.units["vocabulary", WHOLE] = check(found, match, "vocabulary", one.module.name)
