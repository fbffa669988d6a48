"""Paired comparison of task scores, document by document.

Scores of one task under two variants are answers to the same documents. The exact test of McNemar
counts only flips, the documents that one variant alone answers right. The interval of the
difference has the variance of a paired bootstrap over documents, in closed form and with one
further flip in each direction, after Agresti and Min (2005, Statistics in Medicine 24, 729–740):
without, no flips would look like certainty.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from statistics import NormalDist
from typing import Any

import pandas as pd

from sparsity_report.study.block_bootstrap import LEVEL, holm_levels
from sparsity_report.study.derived.facts import Facts
from sparsity_report.study.harness_results import PAIRING, unpack
from sparsity_report.study.layers import records

# Scores with other values are of other questions or answers.
_ALIKE = ("harness", "harness_version", "task_version", *PAIRING[:3])
_KEYS = ["task", "metric", "filter", "n_shot"]


def paired_tasks(tasks: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Return the paired differences of variants on each task and on all tasks together.

    Parameters
    ----------
    tasks : pandas.DataFrame
        As of a study.
    pairs : iterable of (str, str)
        A variant, and the one that it is compared with.

    Returns
    -------
    pandas.DataFrame
        As :attr:`sparsity_report.Study.task_pairs`.
    """
    rows = [row for pair in pairs for row in _pair(tasks, *pair)]
    paired = [row for row in rows if "p" in row]
    for row, level in zip(paired, holm_levels([row["p"] for row in paired]), strict=True):
        low, high = interval(row["lost"], row["gained"], row["documents"], level)
        separated = row["p"] < 1 - level and not low <= 0 <= high
        row |= {"level": level, "low": low, "high": high, "separated": separated}
    columns = "tasks documents lost gained difference p level low high separated obstacle"
    names = ["variant", "against", *_KEYS, *columns.split()]
    return pd.DataFrame(rows, columns=names, dtype=object)


def compared_variants(facts: Facts, tasks: pd.DataFrame) -> list[tuple[str, str]]:
    """Return each variant with its unpruned model, then the distinct prunings with each other."""
    described, names = facts.study.variants.set_index("variant"), {*tasks["variant"]}
    pairs = []
    for name in (name for name in described.index if name in names):
        same = described["fingerprint"] == described["fingerprint"][name]
        base = next(iter(described.index[same & described["method"].isna()]), name)
        if base == name and facts.total(name, "total") == facts.total(facts.baseline, "total"):
            base = facts.baseline
        pairs += [(name, base)] if base in names and base != name else []
    prunings = combinations((name for name in facts.contenders if name in names), 2)
    return pairs + [pair for pair in prunings if pair not in pairs]


def winners(frame: pd.DataFrame, shares: Mapping[str, float]) -> dict[tuple[object, ...], str]:
    """Return the variant that beats each other one with as many zeros or more, by task.

    Keys are task, metric, filter and examples.

    Parameters
    ----------
    frame : pandas.DataFrame
        From :func:`paired_tasks`, with every pair of the variants.
    shares : mapping of str to float
        Shares of zeros of the variants.
    """
    rivals, most = set(shares), max(shares.values(), default=0.0)
    beaten: dict[tuple[str, ...], set[str]] = {}
    for row in records(frame[frame["separated"].eq(True)]):
        sides = row["variant"], row["against"]
        better, worse = sides if row["difference"] > 0 else sides[::-1]
        if rivals >= {better, worse}:
            beaten.setdefault((better, *(row[key] for key in _KEYS)), set()).add(worse)
    return {
        key[1:]: key[0]
        for key, others in beaten.items()
        if others == rivals - {key[0]} and shares[key[0]] == most
    }


def mcnemar(lost: int, gained: int) -> float:
    """Return the p-value of the exact test of McNemar: flips in both directions are equally likely.

    Examples
    --------
    >>> mcnemar(0, 0), round(mcnemar(1, 5), 6)
    (1.0, 0.21875)
    """
    flips, few = lost + gained, min(lost, gained)
    known = math.lgamma(flips + 1) - flips * math.log(2)
    ways = (math.lgamma(k + 1) + math.lgamma(flips - k + 1) for k in range(few + 1))
    return min(1.0, 2 * math.fsum(math.exp(known - each) for each in ways))


def interval(lost: int, gained: int, documents: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of the difference of accuracy, see the module.

    Examples
    --------
    >>> [round(end, 3) for end in interval(8, 0, 60)]
    [-0.224, -0.034]
    """
    number = documents + 2
    mean = (gained - lost) / number
    error = math.sqrt(((gained + lost + 2) / number - mean**2) / number)
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return max(-1.0, mean - reach), min(1.0, mean + reach)


def _pair(tasks: pd.DataFrame, variant: str, against: str) -> list[dict[str, Any]]:
    """Return a row per task that both variants ran, then a row per pooled metric."""
    one, other = (tasks[tasks["variant"] == name] for name in (variant, against))
    names = {"variant": variant, "against": against}
    rows: list[dict[str, Any]] = []
    pools: dict[tuple[Any, ...], list[tuple[int, int, int]]] = {}
    for row in records(one.merge(other, on=_KEYS, suffixes=("", "_against"))):
        described = names | {key: None if pd.isna(row[key]) else row[key] for key in _KEYS}
        if obstacle := _obstacle(row):
            rows.append(described | {"tasks": 1, "obstacle": obstacle})
            continue
        right, before = unpack(row["outcomes"]), unpack(row["outcomes_against"])
        counts = len(right), int((before & ~right).sum()), int((right & ~before).sum())
        rows.append(described | {"tasks": 1} | _figures(*counts))
        pools.setdefault(tuple(described[key] for key in _KEYS[1:]), []).append(counts)
    for key, listed in pools.items():
        if len(listed) > 1:
            described = names | {"task": None} | dict(zip(_KEYS[1:], key, strict=True))
            sums = (sum(counts) for counts in zip(*listed, strict=True))
            rows.append(described | {"tasks": len(listed)} | _figures(*sums))
    return rows


def _obstacle(row: dict[str, Any]) -> str | None:
    """Return the first column by which two runs are not paired."""
    if pd.isna(row["outcomes"]) or pd.isna(row["outcomes_against"]):
        return PAIRING[-1]
    for column in _ALIKE:
        one, other = row[column], row[f"{column}_against"]
        if one != other and not (pd.isna(one) and pd.isna(other)):
            return column
    return None


def _figures(documents: int, lost: int, gained: int) -> dict[str, Any]:
    flips = {"documents": documents, "lost": lost, "gained": gained}
    return flips | {"difference": (gained - lost) / documents, "p": mcnemar(lost, gained)}
