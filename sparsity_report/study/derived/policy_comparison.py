"""Several prunings of a model side by side: their figures, and which of them is best at what.

A figure is compared as it is shown: what is equal to its last digit is equal, and a speed is best
only where its interval lies above all others. Of scores a study keeps means, which have no
interval; whether two are told apart is known from the number of first guesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import pandas as pd

from sparsity_report.study.derived.layer_spread import Spread
from sparsity_report.study.derived.perplexity import by_protocol
from sparsity_report.study.derived.winners import best_of, best_scores, fastest, first_guesses
from sparsity_report.study.derived.zero_rows import Dead
from sparsity_report.study.layers import records

#: Of layouts of the prunable weights the one that is always told; of the others those of so few
#: bytes ÷ dense bytes.
ALWAYS, USEFUL = "csr_int32", 0.9


class Compared(NamedTuple):
    """One figure of several variants.

    Attributes
    ----------
    key : str
        ``sparsity_prunable``, ``spread`` (of layers, low and high), ``dead_rows``, ``dead_heads``,
        ``smallest`` and ``layout`` (bytes ÷ dense bytes of the prunable weights), ``perplexity``,
        ``kl``, ``agreement``, or ``realised`` (a speed with its interval).
    of : str
        The layout, the text, or the number of tokens at a time.
    values : mapping
        By variant; None where unknown, and of layouts that would lose weights.
    best : frozenset of str
        The best among each set of prunings, with those that are not told apart from it; of a set
        whose members are equal, or none of them told apart, none.
    guesses : mapping
        Of scores: by variant, how many first guesses were those of the baseline, or were right
        where that is not known; of ``scored`` tokens.
    scored : int
    """

    key: str
    of: str
    values: Mapping[str, Any]
    best: frozenset[str] = frozenset()
    guesses: Mapping[str, int] = {}
    scored: int = 0


class Comparables(NamedTuple):
    """Prunings of one model, and the figures in which they are compared.

    Attributes
    ----------
    baseline : str
    sets : tuple of (float, tuple of str)
        Variants by the share of zeros that was asked for; those of a set compete.
    figures : tuple of Compared
    """

    baseline: str
    sets: tuple[tuple[float, tuple[str, ...]], ...]
    figures: tuple[Compared, ...]

    @property
    def variants(self) -> list[str]:
        """The baseline and the prunings, by their share of zeros."""
        return [self.baseline, *(name for _, names in self.sets for name in names)]

    @property
    def contests(self) -> list[tuple[float, tuple[str, ...]]]:
        """The sets that have a winner to be found."""
        return [(share, names) for share, names in self.sets if len(names) > 1]


class Figures(Protocol):
    """What prunings are compared in; ``study.facts`` are such."""

    @property
    def baseline(self) -> str:
        """The variant others are compared with."""
        ...

    @property
    def prunings(self) -> tuple[str, ...]:
        """The first variant of each distinct set of zeros."""
        ...

    @property
    def methods(self) -> pd.DataFrame:
        """How each came to be."""
        ...

    def total(self, variant: str, column: str) -> float | None:
        """Return a figure of ``study.totals``."""
        ...

    def spread(self, variant: str) -> Spread | None:
        """Return how unevenly zeros lie."""
        ...

    def dead(self, variant: str) -> Dead | None:
        """Return what is zero throughout."""
        ...

    def lossless(self, variant: str) -> pd.DataFrame:
        """Return the bytes of lossless layouts."""
        ...

    def smallest_layout(self, variant: str) -> str | None:
        """Return the lossless layout of the fewest bytes."""
        ...

    def passages(self, names: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield what variants were scored on alike."""
        ...

    def whole_speeds(self, variant: str) -> pd.DataFrame:
        """Return the speeds of whole forward passes."""
        ...


def comparables(facts: Figures) -> Comparables | None:
    """Return the prunings of the first model pruned, side by side; None of fewer than two.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> policies = sr.n_m(weights, 2, 4), sr.global_magnitude(weights, 0.5)
    >>> study = sr.compare(sr.dense(weights), *map(sr.masked, policies), patterns=True)
    >>> compared = comparables(study.facts)
    >>> compared.variants
    ['Dense', 'Masked50', 'Masked2:4']
    >>> next(f.values for f in compared.figures if f.of == "2:4")
    {'Dense': None, 'Masked50': None, 'Masked2:4': 0.53125}
    """
    frame = facts.methods
    pruned = frame[frame["variant"].isin(facts.prunings)]
    if pruned.empty:
        return None
    first = next(name for name in facts.prunings if name in set(pruned["variant"]))
    model = frame.set_index("variant")["fingerprint"][first]
    # What comes with zeros, as a packed file may, is what prunings of it are compared with.
    rivals = pruned[(pruned["fingerprint"] == model) & (pruned["variant"] != facts.baseline)]
    if len(rivals) < 2:
        return None
    sets: dict[float, list[str]] = {}
    for row in records(rivals):
        sets.setdefault(round(float(row["sparsity"]), 3), []).append(str(row["variant"]))
    groups = tuple((share, tuple(names)) for share, names in sorted(sets.items()))
    names = [facts.baseline, *(name for _, names in groups for name in names)]
    # Where no two share a level, all compete, each level against the others.
    fields = [of for _, of in groups if len(of) > 1] or [tuple(names[1:])]
    told = (figure._replace(best=_best(figure, fields)) for figure in _figures(facts, names))
    return Comparables(facts.baseline, groups, tuple(told))


def _figures(facts: Figures, names: Sequence[str]) -> Iterator[Compared]:
    shares = {name: facts.total(name, "sparsity_prunable") for name in names}
    yield Compared("sparsity_prunable", "", shares)
    spreads = {name: facts.spread(name) for name in names}
    ends = {name: (s.low, s.high) if s else None for name, s in spreads.items()}
    yield Compared("spread", "", ends)
    found = {name: facts.dead(name) for name in names}
    for key in ("rows", "heads"):
        sums = {
            name: None if of is None else int(getattr(of, key).sum()) for name, of in found.items()
        }
        if any(sums.values()):
            yield Compared(f"dead_{key}", "", sums)
    yield from _layouts(facts, names)
    yield from _quality(facts, names)
    yield from _speeds(facts, names)


def _layouts(facts: Figures, names: Sequence[str]) -> Iterator[Compared]:
    """Yield bytes ÷ dense bytes of layouts that lose nothing and save some variant a tenth."""
    ratios = {name: facts.lossless(name)["ratio"].astype(float).to_dict() for name in names}
    smallest = {name: facts.smallest_layout(name) for name in names}
    yield Compared(
        "smallest",
        "",
        {name: (ratios[name][of], of) if of else None for name, of in smallest.items()},
    )
    for layout in dict.fromkeys(layout for of in ratios.values() for layout in of):
        values = {name: of.get(layout) for name, of in ratios.items()}
        smaller = any(value is not None and value <= USEFUL for value in values.values())
        if layout != "dense" and (smaller or layout == ALWAYS):
            yield Compared("layout", str(layout), values)


def _quality(facts: Figures, names: Sequence[str]) -> Iterator[Compared]:
    """Yield what was scored on the first text, by one protocol, of at least two of the prunings."""
    for text, rows in facts.passages(names[1:]):
        rows = rows.drop_duplicates("variant")
        guesses = first_guesses(rows[rows["variant"].isin(names[1:])])
        scores, scored = rows.set_index("variant"), int(rows["scored"].iloc[0])
        for key in ("perplexity", "kl", "agreement"):
            values = scores[key].dropna()
            known: dict[str, Any] = {name: values.get(name) for name in names}
            if key != "perplexity":
                known[names[0]] = None  # of the baseline against itself
            if sum(known[name] is not None for name in names[1:]) > 1:
                yield Compared(key, text, known, guesses=guesses, scored=scored)
        return


def _speeds(facts: Figures, names: Sequence[str]) -> Iterator[Compared]:
    rows = {name: facts.whole_speeds(name) for name in names[1:]}
    tokens = sorted({int(n) for frame in rows.values() for n in frame["tokens"]})
    for number in tokens:
        values: dict[str, Any] = dict.fromkeys(names)
        for name, frame in rows.items():
            for row in records(frame[frame["tokens"] == number].head(1)):
                stated = row["realised_speedup"] if row["verdict"] == "stated" else None
                if row["verdict"] in ("stated", "noise"):
                    values[name] = (stated, row["realised_low"], row["realised_high"])
        if any(values.values()):
            yield Compared("realised", str(number), values)


def _best(figure: Compared, fields: Sequence[Sequence[str]]) -> frozenset[str]:
    return frozenset(name for names in fields for name in _best_among(figure, names))


def _best_among(figure: Compared, names: Sequence[str]) -> frozenset[str]:
    values = {name: figure.values[name] for name in names}
    match figure.key:
        case "realised":
            return fastest(values, names)
        case "smallest":
            return best_of({name: value and value[0] for name, value in values.items()}, "ratio")
        case "layout":
            return best_of(values, "ratio")
        case "perplexity" | "kl" | "agreement":
            return best_scores(values, figure.key, figure.guesses, figure.scored)
    return frozenset()


def passages(
    quality: pd.DataFrame | None, names: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield texts on which at least two variants were scored in one way, and the scores.

    Parameters
    ----------
    quality : pandas.DataFrame or None
        Of :func:`sparsity_report.perplexity`.
    names : sequence of str
    """
    if quality is None:
        return
    for scores in by_protocol(quality):
        if scores.loc[scores["variant"].isin(names), "variant"].nunique() > 1:
            yield str(scores["text"].iloc[0]), scores
