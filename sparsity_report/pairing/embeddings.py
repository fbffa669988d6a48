"""Which channels of the width and which tokens are left of a base, as the embedding tells."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.alignment import (
    WHOLE,
    Alignment,
    apart,
    as_many,
    away,
    check,
    fewer,
    held,
    matched,
    named,
)
from sparsity_report.pairing.fingerprints import glimpse, matrix, rows_of, units
from sparsity_report.pairing.roles import Anatomy, Part
from sparsity_report.pairing.unit_matching import Match, one_of, untold

# Tokens whose values tell one channel of the width from another, and of those that are looked at.
_TOKENS, _SOME = 2048, 64
# Share of a few channels, or tokens, that are in other places before all are read.
_MANY = 0.1
# Share of channels that are nowhere, or certainty of those that are left, of what may be a
# rotation; tokens, none of the first and seldom ones, whose angles tell, and how much those that
# were and are have in common.
_ALL, _HALF = 0.9, 0.5
_RELATED, _KEPT = 256, 0.9


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
    """Match channels; where hardly one is any of the base's, find out whether they are mixtures."""
    (was, width), (now, narrower) = one.parameter.shape, other.parameter.shape
    if width < narrower:
        fewer(found, "width", one.module.name, width, narrower)
    # Tokens are in one order, also where some were cut off at the end.
    most = min(was, now)
    if width == narrower and (away := _columns_away(found, one, other, most)) < _MANY:
        return
    sides = ((found.before, one), (found.after, other))
    tables = [
        matrix(side.weights, part, most=min(most, _TOKENS)).float().T.contiguous()
        for side, part in sides
    ]
    match = matched(held(tables[0]), held(tables[1]))
    lost = (
        away >= _ALL and match.is_identity if width == narrower else match.certainty.mean() < _HALF
    )
    if lost and _related(*(table[:, -_RELATED:] for table in tables)):
        found.rotated = True
        found.units["width", WHOLE] = untold(width, narrower)
        return
    if lost:  # unless the first tokens are others
        match = _as_vectors_tell(found, other=was != now and width != narrower) or match
    if not match.is_identity:
        found.units["width", WHOLE] = check(found, match, "width", one.module.name)


def _columns_away(found: Alignment, one: Part, other: Part, most: int) -> float:
    """Return the share of channels that are not what they were, as a few tokens tell."""
    tokens = np.unique(np.linspace(0, most - 1, _SOME).round().astype(np.int64))
    inputs = np.arange(one.parameter.shape[1])
    sides = ((found.before.weights, one), (found.after.weights, other))
    tables = [glimpse(weights, part, None, tokens, inputs) for weights, part in sides]
    if tables[0] is None or tables[1] is None:
        return 0.0
    return apart(tables[0].T, tables[1].T)


def _as_vectors_tell(found: Alignment, other: bool) -> Match | None:
    """Match channels by equal values in norms and biases, of blocks in any that hold them.

    None where they do not tell, which is refused of `other` tokens.
    """
    sides = [_vectors(side) for side in (found.before, found.after)]
    alike = defaultdict(set)
    for channel, (outside, _) in enumerate(sides[0]):
        alike[outside].add(channel)
    candidates = [
        {n for n in alike[outside] if sides[0][n][1] >= inside} for outside, inside in sides[1]
    ]
    match = one_of(candidates, len(sides[0]))
    if match is not None and match.certainty.mean() >= _HALF:
        return match
    if other:
        raise SparsityReportError(
            f"{named(found)}: both the width and the vocabulary were cut, and neither the first "
            "tokens nor the norms tell which channels are left; cut one after the other, and "
            "compare each with what was there before, or the two are unrelated"
        )
    return None


def _vectors(side: Anatomy) -> list[tuple[bytes, set[tuple[str, str, float]]]]:
    """Return of each channel its values in vectors outside of blocks, and the set of those inside.

    A value inside is known by the role of its vector, as nothing says which blocks are left.
    """
    outside, inside = [], list[tuple[tuple[str, str], list[float]]]()
    for part in side.parts:
        if [s.axis for s in part.rows] == ["width"] and not part.columns and part.expert is None:
            values = matrix(side.weights, part).flatten()
            if part.block is None:
                outside.append(values.float().numpy())
            else:
                inside.append((part.key, values.tolist()))
    width = side.width or 0
    table = np.stack(outside, axis=1) if outside else np.empty((width, 0), dtype=np.float32)
    return [
        (table[n].tobytes(), {(*key, values[n]) for key, values in inside}) for n in range(width)
    ]


def _related(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether tokens, the columns, are as much like each other as they were.

    A rotation changes none of their angles; cutting what matters least off changes them little.
    """
    pairs = torch.triu_indices(one.shape[1], one.shape[1], 1)
    angles = []
    for table in (one, other):
        long = torch.nn.functional.normalize(table, dim=0)
        angles.append((long.T @ long)[pairs[0], pairs[1]])
    return bool(torch.corrcoef(torch.stack(angles))[0, 1] >= _KEPT)


def _vocabulary(found: Alignment, one: Part, other: Part) -> None:
    was, now = one.parameter.shape[0], other.parameter.shape[0]
    if as_many(found, "vocabulary", one.module.name, was, now):
        return
    if was == now and away(found, (one, other)) < _MANY:
        return
    match = matched(
        lambda: (units(rows, 1, found.columns) for rows in rows_of(found.before.weights, one)),
        lambda: (units(rows, 1) for rows in rows_of(found.after.weights, other)),
    )
    if not match.is_identity:
        found.units["vocabulary", WHOLE] = check(found, match, "vocabulary", one.module.name)
