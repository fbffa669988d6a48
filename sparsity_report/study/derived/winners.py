"""The best of several figures: one definition for tables, charts and sentences.

Figures are compared as they are shown, so two figures with the same digits are equal. Where all are
equal, none is the best. A study keeps means of scores, which have no interval, so the number of
correct first guesses decides if two scores differ by more than chance.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

# Digits that tables show, by figure.
DIGITS = {"ratio": ".2f", "perplexity": ".2f", "kl": ".3g", "agreement": ".4f", "accuracy": ".4f"}
_LARGEST = frozenset({"agreement", "accuracy"})
# Standard deviations between two counts of guesses; chance exceeds them once in a hundred times.
_FAR = 2.576


def best_of(values: Mapping[str, float | None], figure: str) -> frozenset[str]:
    """Return the names of the best values as they are shown; empty if none beats another.

    Parameters
    ----------
    values : mapping of str to float or None
        None where unknown.
    figure : str
        A key of :data:`DIGITS`.

    Examples
    --------
    >>> sorted(best_of({"a": 2.0, "b": None, "c": 1.501, "d": 1.502}, "perplexity"))
    ['c', 'd']
    >>> best_of({"a": 2.0, "b": 2.0}, "perplexity")
    frozenset()
    """
    shown = _shown(values, figure)
    if len(set(shown.values())) < 2:
        return frozenset()
    best = (max if figure in _LARGEST else min)(shown.values())
    return frozenset(name for name, value in shown.items() if value == best)


def best_scores(
    values: Mapping[str, float | None], metric: str, guesses: Mapping[str, int], scored: int
) -> frozenset[str]:
    """Return the best scores and those that do not differ from them by more than chance.

    Parameters
    ----------
    values : mapping of str to float or None
        Scores by variant.
    metric : {"perplexity", "kl", "agreement"}
    guesses : mapping of str to int
        Correct first guesses by variant, see :func:`first_guesses`.
    scored : int
        Number of scored tokens.

    Returns
    -------
    frozenset of str
        Variants; empty where none differs from the others.
    """
    best = best_of(values, metric)
    if not best:
        return best
    ahead = max(best, key=lambda name: guesses[name])
    known = _shown(values, metric)
    best |= {name for name in known if not _differ(guesses[ahead], guesses[name], scored)}
    return best if len(best) < len(known) else frozenset()


def best_rows(scores: pd.DataFrame, metric: str) -> frozenset[str]:
    """Return the best of several rows of ``study.quality``, see :func:`best_scores`.

    Parameters
    ----------
    scores : pandas.DataFrame
        Rows by one protocol, one per variant, all of one model.
    metric : {"perplexity", "kl", "agreement"}
    """
    if scores["scored"].nunique() != 1:
        return frozenset()
    pairs = zip(scores["variant"], scores[metric], strict=True)
    values = {str(name): None if pd.isna(value) else float(value) for name, value in pairs}
    return best_scores(values, metric, first_guesses(scores), int(scores["scored"].iloc[0]))


def first_guesses(scores: pd.DataFrame) -> dict[str, int]:
    """Return the number of first guesses that agree with the dense model's, by variant.

    Where a variant was not compared with the dense model, the number of right ones.

    Parameters
    ----------
    scores : pandas.DataFrame
        Rows of ``study.quality`` by one protocol, one per variant.
    """
    shares = scores["top1" if scores["agreement"].isna().any() else "agreement"]
    counts = (scores["scored"] * shares).astype(float)
    return {str(name): round(count) for name, count in zip(scores["variant"], counts, strict=True)}


def fastest(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the variant whose interval of speed lies above all others; empty if there is none.

    Parameters
    ----------
    values : mapping
        By variant that competes, ``(ratio, low, high)`` with ratio None within the noise, or None.
    """
    if None in values.values() or len(values) < 2:
        return frozenset()
    for name, (ratio, low, _) in values.items():
        others = [high for other, (_, _, high) in values.items() if other != name]
        if ratio is not None and low > max(others):
            return frozenset({name})
    return frozenset()


def _shown(values: Mapping[str, float | None], figure: str) -> dict[str, float]:
    known = {name: value for name, value in values.items() if value is not None}
    return {name: float(format(value, DIGITS[figure])) for name, value in known.items()}


def _differ(more: int, fewer: int, scored: int) -> bool:
    """Return true if the lead in first guesses exceeds chance.

    Sign test on the tokens where exactly one of two variants guesses right (McNemar, 1947). A study
    does not keep their number; the largest possible number is assumed, which errs towards no
    difference.
    """
    most = min(more + fewer, 2 * scored - more - fewer)
    return more - fewer > _FAR * math.sqrt(most)
