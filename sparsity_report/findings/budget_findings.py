"""Finding about the sparsity level that meets a budget."""

from sparsity_report.phrases import Phrase, phrase
from sparsity_report.study.levels.budget import Within

_COSTS = {"bytes": "budget.bytes_level", "flops": "budget.flops_level"}


def budget_finding(solved: Within) -> Phrase:
    """Return the level that meets a budget, and for perplexity the measured levels around it.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> print(budget_finding(sr.level_within(study, "2 MB")))
    80 %: the model takes 1.96 MB in CSR, within 2.00 MB
    """
    budget = solved.budget
    if solved.dense:
        key = "budget.dense_within"
    elif solved.measured is None:
        key = _COSTS[budget.kind]
    elif solved.beyond is None:
        key = "budget.perplexity_highest_measured"
    else:
        key = "budget.perplexity_next_measured"
    beyond, score = solved.beyond or (None, None)
    return phrase(
        key,
        value=budget.write(solved.value),
        budget=budget.write(budget.most),
        level=solved.sparsity,
        measured=solved.measured,
        beyond=beyond,
        score=None if score is None else budget.write(score),
    )
