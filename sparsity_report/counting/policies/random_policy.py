"""Pruning of random weights, the same ones on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.allocation import Allocation, compute_quotas
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.cuts import CountedCut
from sparsity_report.counting.histogram import Values
from sparsity_report.counting.n_m_patterns import Flags
from sparsity_report.counting.policies.magnitude_policies import check_values
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Pruning
from sparsity_report.counting.pruning_policies import RandomWeights
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.tensor_slices import pieces
from sparsity_report.weights.weights import Weights

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
    ties : int
        Pruned weights with exactly this word, the first by position.
    """

    key: int
    lot: int
    ties: int

    def _masked(self, parts: Iterable[Values]) -> Iterator[tuple[Values, Flags]]:
        generator, ties = np.random.Philox(key=self.key), self.ties
        for part in parts:
            lots: Words = generator.random_raw(part.size)
            kept = lots >= np.uint64(self.lot)
            if ties:
                on_it = np.flatnonzero(lots == np.uint64(self.lot))[:ties]
                kept[on_it] = False
                ties -= len(on_it)
            yield part, kept.reshape(part.shape)


@with_bar("pruning")
def random_unstructured(
    weights: Weights,
    sparsity: float | None,
    *,
    seed: int = 0,
    allocation: Allocation = None,
    progress: Progress | None = None,
) -> Pruning:
    """Prune random weights of each prunable tensor: a baseline for other policies.

    Every tensor loses as many weights as by :func:`layerwise_magnitude`. Weight number i in memory
    order gets word number i of NumPy's Philox generator, keyed by the first half of the SHA-256 of
    seed and parameter name. The weights with the lowest words are pruned: the same ones on every
    machine.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float or None
        From 0 to 1. None: the share that the allocation adds up to.
    seed : int
        Seed of the generator, 0 or more.
    allocation : DataFrame, mapping or callable, optional
        See :func:`layerwise_magnitude`.
    progress : callable, optional
        See :func:`global_magnitude`.

    Returns
    -------
    Pruning
        The cut of each tensor; the model is not modified.

    Raises
    ------
    SparsityReportError
        `sparsity`, `allocation` or `seed` is not valid, or no weight is prunable.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.random_unstructured(sr.load(), sparsity=0.5)
    >>> sr.masked(pruning).name, pruning.method
    ('Masked50Random', 'random, seed 0')
    """
    check_seed(seed)
    check_values(weights)
    shares = compute_quotas(weights, sparsity, allocation)
    counts, cuts = count_weights(weights, progress), {}
    for p in weights.prunable:
        if pruned := shares.counts[p.name]:
            cut = random_cut(seed, p.name, p.total, pruned)
            if counts[p.name].nonzero < p.total:
                cut = replace(cut, nonzero=cut.kept(pieces(weights.as_in_memory(p.name))))
            cuts[p.name] = cut
    policy = RandomWeights(seed=seed, allocation=shares.name)
    return Pruning(weights, shares.sparsity, policy, cuts)


def random_cut(seed: int, name: str, total: int, pruned: int) -> RandomCut:
    """Return a random cut of a tensor, with all kept weights assumed to be nonzero.

    The key of the generator is the first half of the SHA-256 of seed and name.

    Examples
    --------
    >>> cut = random_cut(0, "fc1.weight", 10, 3)
    >>> cut.mask(np.ones((2, 5))).astype(int).tolist()
    [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    """
    key = _key(seed, name)
    tally = np.zeros(2**16, dtype=np.int64)
    for lots in _lots(key, total):
        tally += np.bincount((lots >> _TOP).astype(np.int64), minlength=tally.size)
    reached = np.cumsum(tally)
    bucket = int(np.searchsorted(reached, pruned))
    before = int(reached[bucket] - tally[bucket])
    inside = np.concatenate([lots[lots >> _TOP == np.uint64(bucket)] for lots in _lots(key, total)])
    inside.sort()
    lot = inside[pruned - before - 1]
    below = before + int(np.searchsorted(inside, lot))
    return RandomCut(pruned, total - pruned, key, int(lot), pruned - below)


def random_words(seed: int, name: str, total: int) -> Words:
    """Return the words of a tensor or module, the same ones on every machine.

    Examples
    --------
    >>> random_words(0, "fc1.weight", 2) % 100
    array([69, 73], dtype=uint64)
    """
    return np.random.Philox(key=_key(seed, name)).random_raw(total)


def check_seed(seed: object) -> None:
    """Refuse a seed that is no whole number of 0 or more."""
    if type(seed) is not int or seed < 0:
        raise SparsityReportError(f"seed must be a whole number of 0 or more, not {seed!r}")


def _key(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16], "little")


def _lots(key: int, total: int) -> Iterator[Words]:
    generator = np.random.Philox(key=key)
    for start in range(0, total, _BLOCK):
        yield generator.random_raw(min(_BLOCK, total - start))
