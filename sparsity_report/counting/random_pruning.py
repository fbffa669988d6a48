"""Random pruning with the same weights on every machine."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.counting.pruning import CountedCut

Words = npt.NDArray[np.uint64]

# Random words drawn at a time.
_BLOCK = 2**20
_TOP = np.uint64(48)


@dataclass(frozen=True, slots=True)
class RandomCut(CountedCut):
    """A cut of the weights with the lowest random words.

    Weight number i of the tensor, in memory order, gets the i-th 64-bit word of NumPy's Philox
    generator, whose stream is the same on every machine and in every version.

    Attributes
    ----------
    key : int
        Key of the generator, 128 bits.
    lot : int
        Weights with a lower word are pruned.
    pruned : int
        Number of pruned elements.
    ties : int
        Pruned weights with exactly this word, the first by position.
    nonzero : int
        Kept weights that are not zero.
    """

    key: int
    lot: int
    pruned: int
    ties: int
    nonzero: int

    def _chosen(self, parts: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator, ties = np.random.Philox(key=self.key), self.ties
        for part in parts:
            lots: Words = generator.random_raw(part.numel())
            stays = lots >= np.uint64(self.lot)
            if ties:
                on_it = np.flatnonzero(lots == np.uint64(self.lot))[:ties]
                stays[on_it] = False
                ties -= len(on_it)
            yield part, torch.from_numpy(stays).reshape(part.shape).to(part.device)


def random_cut(seed: int, name: str, total: int, pruned: int) -> RandomCut:
    """Return a random cut of a tensor, with all kept weights assumed to be nonzero.

    The key of the generator is the first half of the SHA-256 of seed and name.

    Examples
    --------
    >>> cut = random_cut(0, "fc1.weight", 10, 3)
    >>> cut.mask(torch.ones(2, 5)).int().tolist()
    [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    """
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16], "little")
    tally = np.zeros(2**16, dtype=np.int64)
    for lots in _lots(key, total):
        tally += np.bincount((lots >> _TOP).astype(np.int64), minlength=tally.size)
    reached = np.cumsum(tally)
    bucket = int(np.searchsorted(reached, pruned))
    before = int(reached[bucket] - tally[bucket])
    inside = np.sort(
        np.concatenate([lots[lots >> _TOP == np.uint64(bucket)] for lots in _lots(key, total)])
    )
    lot: Any = inside[pruned - before - 1]
    below = before + int(np.searchsorted(inside, lot))
    return RandomCut(key, int(lot), pruned, pruned - below, total - pruned)


def _lots(key: int, total: int) -> Iterator[Words]:
    generator = np.random.Philox(key=key)
    for start in range(0, total, _BLOCK):
        yield generator.random_raw(min(_BLOCK, total - start))
