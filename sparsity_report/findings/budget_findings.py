"""What a budget comes to, in one sentence."""

from __future__ import annotations

from sparsity_report.study.levels.budget import Within
from sparsity_report.words.sentences import message, say

_COSTS = {
    "bytes": message("{level:level}: as CSR the model takes {value}, within {budget}"),
    "flops": message("{level:level}: as CSR the model computes with {value}, within {budget}"),
}


def budgeted(solved: Within) -> str:
    """Say which level a budget comes to, and how sure that is.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> budgeted(sr.level_within(study, "2 MB"))
    '80 %: as CSR the model takes 1.96 MB, within 2.00 MB'
    """
    budget = solved.budget
    words = {
        "value": budget.write(solved.value),
        "budget": budget.write(budget.most),
        "level": solved.sparsity,
    }
    if solved.dense:
        return say("dense, the model is within {budget} already: {value}", **words)
    if solved.measured is None:
        return say(_COSTS[budget.kind], **words)
    words["measured"] = solved.measured
    if solved.beyond is None:
        return say(
            "{level:level}: perplexity {value} was measured at {measured:percent}, within "
            "{budget}; nothing higher was measured",
            **words,
        )
    level, score = solved.beyond
    return say(
        "{level:level}: perplexity {value} was measured at {measured:percent}, within {budget}; "
        "{score} at {beyond:percent}; nothing is known in between",
        **words,
        score=budget.write(score),
        beyond=level,
    )
