"""Findings about policies that prune to the same sparsity: the best of each measured figure.

``study.compared`` marks the best. Figures that read alike, or differ by no more than noise,
are a tie, and a speed is the best only if its interval lies above all others.
"""

from collections.abc import Iterator, Sequence

from sparsity_report.phrases import Phrase, phrase
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.policy_comparison import Comparables, Compared

# Digits shown, and keys of: a best, equal scores, and scores that differ without a best.
_SCORES = {
    "perplexity": (
        ".2f", "policy.perplexity_lowest", "policy.perplexity_equal", "policy.perplexity_no_winner"
    ),
    "kl": (".3g", "policy.kl_lowest", "policy.kl_equal", "policy.kl_no_winner"),
}  # fmt: skip


def policy_findings(study: Comparison) -> Iterator[Phrase]:
    """Yield the best policies at each sparsity that several policies prune to.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> policies = sr.n_m(weights, 2, 4), sr.global_magnitude(weights, 0.5)
    >>> study = sr.compare(sr.dense(weights), *map(sr.masked, policies))
    >>> print(str(next(policy_findings(study)))[:59])
    At 50 % sparsity, Masked50 and Masked2:4 take the same 0.53
    """
    if (compared := study.compared) is None:
        return
    measured = any(figure.key in (*_SCORES, "realised") for figure in compared.figures)
    for place, (share, names) in enumerate(compared.contests, 1):
        clauses = [*_bytes(compared, names), *_measured(compared, names)]
        if not measured and place == len(compared.contests):
            clauses.append(phrase("policy.quality_not_measured"))
        if clauses:
            yield phrase("policy.winners_at_level", share=share, clauses=clauses)


def _bytes(compared: Comparables, names: Sequence[str]) -> Iterator[Phrase]:
    (figure,) = (f for f in compared.figures if f.key == "smallest")
    values = {name: figure.values[name] for name in names}
    if any(value is None for value in values.values()):
        return
    winners = [name for name in names if name in figure.best]
    variants = winners or list(names)
    key = "policy.smallest_layout" if winners else "policy.smallest_layout_equal"
    others = [values[name][0] for name in names if name not in variants]
    layouts = list(dict.fromkeys(values[name][1] for name in variants))
    ratio = values[variants[0]][0]
    yield phrase(key, variants=variants, ratio=ratio, layouts=layouts, others=others)


def _measured(compared: Comparables, names: Sequence[str]) -> Iterator[Phrase]:
    """Yield the best at each figure that was measured for all of the variants."""
    for figure in compared.figures:
        if any(figure.values[name] is None for name in names):
            continue
        if figure.key in _SCORES:
            yield _score(compared.baseline, figure, names)
        elif figure.key == "realised":
            yield _speed(compared.baseline, figure, names)


def _score(base: str, figure: Compared, names: Sequence[str]) -> Phrase:
    digits, lowest, equal, no_winner = _SCORES[figure.key]
    winners = [name for name in names if name in figure.best]
    is_equal = len({f"{figure.values[name]:{digits}}" for name in names}) == 1
    key = lowest if winners else equal if is_equal else no_winner
    values = [figure.values[name] for name in winners or names]
    others = [figure.values[name] for name in names if name not in winners]
    scores = {"best": winners, "values": values, "others": others}
    return phrase(key, text=figure.subject, base=base, **scores)


def _speed(base: str, figure: Compared, names: Sequence[str]) -> Phrase:
    tokens = int(figure.subject)
    winner = next((name for name in names if name in figure.best), None)
    if winner is None:
        return phrase("policy.speed_no_winner", tokens=tokens)
    speed = dict(zip(("ratio", "low", "high"), figure.values[winner], strict=True))
    return phrase("policy.fastest", tokens=tokens, variant=winner, base=base, **speed)
