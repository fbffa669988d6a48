"""Units are given to each other the match_by_similarity pairs first, in little memory."""

import numpy as np

from sparsity_report.pairing.unit_matching import match_by_similarity


def greedily(likeness):
    """All pairs in the order of their likeness, each taken whose units are both free."""
    index, free = np.full(len(likeness), -1), np.ones(likeness.shape[1], dtype=bool)
    for place in np.argsort(-likeness, axis=None):
        row, column = divmod(int(place), likeness.shape[1])
        if index[row] < 0 and free[column]:
            index[row], free[column] = column, False
    return index


def test_the_likest_pairs_come_first():
    generator = np.random.default_rng(0)
    for stayed in range(1, 13):
        for base in (stayed, stayed + 1, stayed + 5):
            # Of so many numbers no two are the same; rows that are near one another want the same.
            likeness = generator.permutation(stayed * base).reshape(stayed, base) / 200
            likeness = (likeness / 4 + np.linspace(0, 0.25, base)).astype(np.float32).round(5)
            found = match_by_similarity(
                lambda start, stop, rows=likeness: rows[start:stop], stayed, base
            )
            if len(np.unique(likeness)) == likeness.size:
                assert found.index.tolist() == greedily(likeness).tolist()
            assert len(set(found.index.tolist())) == stayed
            assert sorted({*found.index.tolist(), *found.removed}) == [*range(base)]
