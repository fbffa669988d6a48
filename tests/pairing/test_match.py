"""The most similar pairs of units are matched first, in bounded memory."""

import numpy as np

from sparsity_report.pairing.unit_matching import match_similar


def greedily(similarity):
    """Match all pairs in order of similarity if both units are free."""
    index, free = np.full(len(similarity), -1), np.ones(similarity.shape[1], dtype=bool)
    for place in np.argsort(-similarity, axis=None):
        row, column = divmod(int(place), similarity.shape[1])
        if index[row] < 0 and free[column]:
            index[row], free[column] = column, False
    return index


def test_the_most_similar_pairs_come_first():
    generator = np.random.default_rng(0)
    for stayed in range(1, 13):
        for base in (stayed, stayed + 1, stayed + 5):
            # The similarities are distinct, and neighboring rows prefer the same unit.
            similarity = generator.permutation(stayed * base).reshape(stayed, base) / 200
            similarity = (similarity / 4 + np.linspace(0, 0.25, base)).astype(np.float32).round(5)
            result = match_similar(np.eye(base, dtype=np.float32), similarity)
            if len(np.unique(similarity)) == similarity.size:
                assert result.index.tolist() == greedily(similarity).tolist()
            assert len(set(result.index.tolist())) == stayed
            assert sorted({*result.index.tolist(), *result.removed}) == [*range(base)]
