"""What a budget comes to, in one sentence."""

from __future__ import annotations

from sparsity_report.study.levels.budget import Within
from sparsity_report.words.sentences import say

_COSTS = {"bytes": "budget.bytes_level", "flops": "budget.flops_level"}


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
        return say("budget.dense_within", **words)
    if solved.measured is None:
        return say(_COSTS[budget.kind], **words)
    words["measured"] = solved.measured
    if solved.beyond is None:
        return say("budget.perplexity_highest_measured", **words)
    level, score = solved.beyond
    return say("budget.perplexity_next_measured", **words, score=budget.write(score), beyond=level)
