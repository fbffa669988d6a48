"""Alignment of the channels of the width and of the tokens, by the embedding."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from sparsity_report.deferred import torch
from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.alignment import Alignment, differing_share, match_rows
from sparsity_report.pairing.fingerprints import iterate_rows, pick_columns, read_matrix
from sparsity_report.pairing.roles import OUTSIDE, ModelRoles, Part
from sparsity_report.pairing.unit_matching import UnitMatch, match_candidates

# Tokens by which channels are matched, and tokens of a sample.
_TOKENS, _SAMPLE = 2048, 64
# Share of sampled channels or tokens up to which all keep their places.
_FEW_MOVED = 0.1
# Share of moved channels, or certainty of the remaining ones, that suggests a rotation.
_NEARLY_ALL, _HALF = 0.9, 0.5
# Tokens whose angles are compared, and the correlation of the angles in a rotated width.
_ANGLES, _CORRELATED = 256, 0.9


def align_embeddings(alignment: Alignment) -> None:
    """Match the channels of the width, then the tokens."""
    key = ("embed", "weight")
    one, other = alignment.before.at("", None).get(key), alignment.after.at("", None).get(key)
    if one is None or other is None or not (one.columns and other.columns):
        return
    if len(one.parameter.shape) != 2 or len(other.parameter.shape) != 2:  # patches of an image
        return
    _align_width(alignment, one, other)
    _align_vocabulary(alignment, one, other)


def _align_width(alignment: Alignment, one: Part, other: Part) -> None:
    """Match channels; refuse a rotated width, where hardly any channel matches."""
    (tokens_before, width), (tokens_after, narrower) = one.parameter.shape, other.parameter.shape
    if width < narrower:
        alignment.check_not_more("width", one.module.name, width, narrower)
    # Tokens are in the same order even if some were cut off at the end.
    tokens = min(tokens_before, tokens_after)
    moved = 0.0
    if width == narrower:
        sample = alignment.sample((one, other), lines=(0, 0, tokens), number=_SAMPLE)
        moved = differing_share(sample and (sample[0].T, sample[1].T))
        if moved < _FEW_MOVED:
            return
    sides = ((alignment.before, one), (alignment.after, other))
    tables = [
        read_matrix(side.weights, part, rows=min(tokens, _TOKENS)).float().T.contiguous()
        for side, part in sides
    ]
    match = match_rows(lambda: (tables[0],), lambda: (tables[1],))
    if width == narrower:
        is_lost = moved >= _NEARLY_ALL and match.is_identity
    else:
        is_lost = bool(match.certainty.mean() < _HALF)
    if is_lost and _have_same_angles(*(table[:, -_ANGLES:] for table in tables)):
        raise SparsityReportError(
            f"{alignment.names}: the width looks rotated, so that no weight matches one of the "
            "base; compare the rotated model before and after pruning"
        )
    if is_lost:  # the first tokens may be different ones
        both_cut = tokens_before != tokens_after and width != narrower
        match = _match_by_vectors(alignment, both_cut) or match
    alignment.add("width", OUTSIDE, match, one.module.name)


def _match_by_vectors(alignment: Alignment, both_cut: bool) -> UnitMatch | None:
    """Match channels by equal values in norms and biases; None if these are not conclusive.

    Raises
    ------
    SparsityReportError
        They are not conclusive, and both the width and the vocabulary were cut.
    """
    base, left = _vector_values(alignment.before), _vector_values(alignment.after)
    by_outside = defaultdict(set)
    for channel, (outside, _) in enumerate(base):
        by_outside[outside].add(channel)
    candidates = [{n for n in by_outside[key] if base[n][1] >= inside} for key, inside in left]
    match = match_candidates(candidates, len(base))
    if match is not None and match.certainty.mean() >= _HALF:
        return match
    if both_cut:
        raise SparsityReportError(
            f"{alignment.names}: both the width and the vocabulary were cut, and neither the first "
            "tokens nor the norms tell which channels are left; cut one after the other, and "
            "compare each with what was there before, or the two are unrelated"
        )
    return None


def _vector_values(side: ModelRoles) -> list[tuple[bytes, set[tuple[str, str, float]]]]:
    """Return for each channel its values in vectors outside of blocks, and those inside.

    A value inside a block is kept with the role of its vector, as the block is not known yet.
    """
    outside, inside = [], list[tuple[tuple[str, str], list[float]]]()
    for part in side.parts:
        if [s.axis for s in part.rows] == ["width"] and not part.columns and part.expert is None:
            values = read_matrix(side.weights, part).flatten()
            if part.block is None:
                outside.append(values.float().numpy())
            else:
                inside.append((part.key, values.tolist()))
    width = side.width or 0
    table = np.stack(outside, axis=1) if outside else np.empty((width, 0), dtype=np.float32)
    return [
        (table[n].tobytes(), {(*key, values[n]) for key, values in inside}) for n in range(width)
    ]


def _have_same_angles(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether the angles between tokens, the columns, are nearly the same.

    A rotation keeps them, and cutting unimportant channels changes them little.
    """
    pairs = torch.triu_indices(one.shape[1], one.shape[1], 1)
    angles = []
    for table in (one, other):
        directions = torch.nn.functional.normalize(table, dim=0)
        angles.append((directions.T @ directions)[pairs[0], pairs[1]])
    return bool(torch.corrcoef(torch.stack(angles))[0, 1] >= _CORRELATED)


def _align_vocabulary(alignment: Alignment, one: Part, other: Part) -> None:
    base, left = one.parameter.shape[0], other.parameter.shape[0]
    alignment.check_not_more("vocabulary", one.module.name, base, left)
    if base == left and differing_share(alignment.sample((one, other))) < _FEW_MOVED:
        return
    before, after, columns = alignment.before.weights, alignment.after.weights, alignment.columns
    match = match_rows(
        lambda: (pick_columns(rows, columns) for rows in iterate_rows(before, one)),
        lambda: (rows.float() for rows in iterate_rows(after, other)),
    )
    alignment.add("vocabulary", OUTSIDE, match, one.module.name)
