"""Which policy is best at what, of prunings to the same share of zeros, in a sentence each.

Best is what ``study.facts.compared`` marks: figures that are shown alike, or not told apart, are a
tie, and a speed is best only where its interval lies above all others. What was not measured is
said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.policy_comparison import Comparables, Compared
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.number_format import figures
from sparsity_report.words.sentences import say

_SCORES = {
    "perplexity": (
        ",.2f",
        "policy.perplexity_lowest",
        "policy.perplexity_equal",
        "policy.perplexity_no_winner",
    ),
    "kl": ("#.3g", "policy.kl_lowest", "policy.kl_equal", "policy.kl_no_winner"),
}


def winners(study: Comparison) -> Iterator[str]:
    """Say, of each share of zeros that several policies prune to, which is best at what.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> policies = sr.n_m(weights, 2, 4), sr.global_magnitude(weights, 0.5)
    >>> study = sr.compare(sr.dense(weights), *map(sr.masked, policies))
    >>> print(next(winners(study))[:60])
    Pruned to 50 %, Masked50 and Masked2:4 take the same 0.53 of
    """
    if (compared := study.facts.compared) is None:
        return
    silent = not any(figure.key in (*_SCORES, "realised") for figure in compared.figures)
    for place, (share, names) in enumerate(compared.contests, 1):
        clauses = [*_bytes(compared, names), *_measured(compared, names)]
        if silent and place == len(compared.contests):
            clauses.append(say("policy.quality_not_measured"))
        if clauses:
            yield say(
                "policy.winners_at_level",
                share=share,
                clauses=say("format.clause_separator").join(clauses),
            )


def _bytes(compared: Comparables, names: Sequence[str]) -> Iterator[str]:
    """Say whose smallest layout takes the fewest bytes."""
    (figure,) = (f for f in compared.figures if f.key == "smallest")
    values = {name: figure.values[name] for name in names}
    if any(value is None for value in values.values()):
        return
    best = [name for name in names if name in figure.best]
    told = best or list(names)
    of = dict.fromkeys(layout_name(values[name][1]) for name in told)
    rest = [values[name][0] for name in names if name not in told]
    said = "policy.smallest_layout_equal"
    if best:
        said = "policy.smallest_layout"
    yield say(
        said,
        variants=[*map(short_name, told)],
        ratio=values[told[0]][0],
        layouts=list(of),
        others=_span(rest, ".2f"),
    )


def _measured(compared: Comparables, names: Sequence[str]) -> Iterator[str]:
    """Say who is best at what was measured of all of them."""
    for figure in compared.figures:
        known = {name: v for name in names if (v := figure.values[name]) is not None}
        if len(known) < len(names):
            continue
        if figure.key in _SCORES:
            yield _score(compared.baseline, figure, names)
        elif figure.key == "realised":
            yield _fastest(compared.baseline, figure, names)


def _score(base: str, figure: Compared, names: Sequence[str]) -> str:
    spec, wins, ties, untold = _SCORES[figure.key]
    best = [name for name in names if name in figure.best]
    rest = [figure.values[name] for name in names if name not in best]
    alike = len({figures(figure.values[name], spec) for name in names}) == 1
    return say(
        wins if best else ties if alike else untold,
        text=short_name(figure.of),
        base=short_name(base),
        best=[*map(short_name, best)],
        value=_span([figure.values[name] for name in best or names], spec),
        others=_span(rest, spec),
    )


def _fastest(base: str, figure: Compared, names: Sequence[str]) -> str:
    best = [name for name in names if name in figure.best]
    if not best:
        return say(
            "policy.speed_no_winner", tokens=say("format.token_count", tokens=int(figure.of))
        )
    ratio, low, high = figure.values[best[0]]
    return say(
        "policy.fastest",
        tokens=say("format.token_count", tokens=int(figure.of)),
        variant=short_name(best[0]),
        base=short_name(base),
        ratio=ratio,
        low=low,
        high=high,
    )


def _span(values: Sequence[float], spec: str) -> str:
    """Write what others have: a figure, or the least and the most."""
    if not values:
        return ""
    low, high = figures(min(values), spec), figures(max(values), spec)
    return low if low == high else say("format.range", low=low, high=high)
