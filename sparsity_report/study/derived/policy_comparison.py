"""Several prunings of one model side by side."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sparsity_report.study.derived.facts import Facts
from sparsity_report.study.derived.protocol_scores import by_protocol
from sparsity_report.study.layers import records

#: The layout of the prunable weights that is always compared.
ALWAYS = "csr_int32"
#: Bytes ÷ dense bytes up to which other layouts are compared.
USEFUL = 0.9
#: Keys of figures that are scores.
SCORES = ("perplexity", "kl", "agreement")


class Compared(NamedTuple):
    """One figure of several variants.

    Attributes
    ----------
    key : str
        ``sparsity_prunable``; ``spread`` (lowest and highest sparsity of a layer); ``dead_rows``
        and ``dead_heads``; ``smallest`` and ``layout`` (bytes ÷ dense bytes of the prunable
        weights); ``perplexity``, ``kl``, ``agreement``; or ``realised`` (a speed-up with its
        interval).
    subject : str
        The layout, the text, or the number of tokens per call.
    values : mapping
        By variant; None where unknown, and for layouts that would lose weights.
    """

    key: str
    subject: str
    values: Mapping[str, Any]


class Comparables(NamedTuple):
    """Prunings of one model, and the figures in which they are compared.

    Attributes
    ----------
    baseline : str
    sets : tuple of (float, tuple of str)
        Target sparsities and their variants.
    figures : tuple of Compared
    """

    baseline: str
    sets: tuple[tuple[float, tuple[str, ...]], ...]
    figures: tuple[Compared, ...]

    @property
    def variants(self) -> list[str]:
        """The baseline and the prunings, by sparsity."""
        return [self.baseline, *(name for _, names in self.sets for name in names)]


def comparables(facts: Facts) -> Comparables | None:
    """Return the prunings of the first pruned model, side by side; None of fewer than two.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> policies = sr.n_m(weights, 2, 4), sr.global_magnitude(weights, 0.5)
    >>> study = sr.compare(sr.dense(weights), *map(sr.masked, policies), patterns=True)
    >>> compared = comparables(study.facts)
    >>> compared.variants
    ['Dense', 'Masked50', 'Masked2:4']
    >>> next(f.values for f in compared.figures if f.subject == "2:4")
    {'Dense': None, 'Masked50': None, 'Masked2:4': 0.53125}
    """
    pruned = facts.first_prunings
    # An unpruned model may have zeros, such as a packed one, and is the baseline all the same.
    rivals = pruned[pruned["variant"] != facts.baseline]
    if len(rivals) < 2:
        return None
    sets: dict[float, list[str]] = {}
    for row in records(rivals):
        sets.setdefault(round(float(row["sparsity"]), 3), []).append(str(row["variant"]))
    groups = tuple((share, tuple(names)) for share, names in sorted(sets.items()))
    names = [facts.baseline, *(name for _, names in groups for name in names)]
    return Comparables(facts.baseline, groups, tuple(_figures(facts, names)))


def _figures(facts: Facts, names: Sequence[str]) -> Iterator[Compared]:
    shares = {name: facts.total(name, "sparsity_prunable") for name in names}
    yield Compared("sparsity_prunable", "", shares)
    spreads = {name: facts.spread(name) for name in names}
    ends = {name: (s.low, s.high) if s else None for name, s in spreads.items()}
    yield Compared("spread", "", ends)
    zeros = {name: facts.dead(name) for name in names}
    for key in ("rows", "heads"):
        sums = {name: dead and int(getattr(dead, key).sum()) for name, dead in zeros.items()}
        if any(sums.values()):
            yield Compared(f"dead_{key}", "", sums)
    yield from _layouts(facts, names)
    yield from _quality(facts, names)
    yield from _speeds(facts, names)


def _layouts(facts: Facts, names: Sequence[str]) -> Iterator[Compared]:
    """Yield bytes ÷ dense bytes of lossless layouts that save at least a tenth for a variant."""
    ratios = {name: facts.lossless(name)["ratio"].astype(float).to_dict() for name in names}
    layouts = {name: facts.smallest_layout(name) for name in names}
    smallest = {name: (ratios[name][at], at) if at else None for name, at in layouts.items()}
    yield Compared("smallest", "", smallest)
    for layout in dict.fromkeys(layout for sizes in ratios.values() for layout in sizes):
        values = {name: sizes.get(layout) for name, sizes in ratios.items()}
        smaller = any(value is not None and value <= USEFUL for value in values.values())
        if layout != "dense" and (smaller or layout == ALWAYS):
            yield Compared("layout", str(layout), values)


def _quality(facts: Facts, names: Sequence[str]) -> Iterator[Compared]:
    """Yield the scores of the first text and protocol by which two prunings were scored."""
    for rows in by_protocol(facts.study.quality):
        scores = rows.drop_duplicates("variant").set_index("variant", drop=False)
        pruned = scores[scores["variant"].isin(names[1:])]
        if len(pruned) < 2:
            continue
        text = str(scores["text"].iloc[0])
        for key in SCORES:
            values = scores[key].dropna()
            known: dict[str, Any] = {name: values.get(name) for name in names}
            if key != "perplexity":
                known[names[0]] = None  # the baseline compared with itself
            if sum(known[name] is not None for name in names[1:]) > 1:
                yield Compared(key, text, known)
        return


def _speeds(facts: Facts, names: Sequence[str]) -> Iterator[Compared]:
    rows = {name: facts.whole_speeds(name) for name in names[1:]}
    for tokens in sorted({int(number) for frame in rows.values() for number in frame["tokens"]}):
        values: dict[str, Any] = dict.fromkeys(names)
        for name, frame in rows.items():
            for row in records(frame[frame["tokens"] == tokens].head(1)):
                stated = row["realised_speedup"] if row["verdict"] == "stated" else None
                if row["verdict"] in ("stated", "noise"):
                    values[name] = (stated, row["realised_low"], row["realised_high"])
        if any(values.values()):
            yield Compared("realised", str(tokens), values)
