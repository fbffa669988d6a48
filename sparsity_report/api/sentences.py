"""Findings about a study, a saved study or a reproduction as sentences."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsity_report.study.comparison import Study
    from sparsity_report.study.pairs.pair import Pair
    from sparsity_report.study.published_scores import Reproduction


def summarize(
    study: Study | Pair | Reproduction | str | os.PathLike[str],
) -> list[str]:
    """Return the findings about a study or a pair as sentences, most important first.

    Parameters
    ----------
    study : Study, Pair, Reproduction or path-like
        The study, the pair, the comparison with a paper, or the path of a saved study or pair.

    Returns
    -------
    list of str
        Sentences.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> study = sr.compare(sr.dense(sr.load()), sr.masked(pruning), sr.csr(pruning))
    >>> print(sr.summarize(study)[0][:53])
    At 30 % sparsity, CSR makes the model a third larger,
    """
    from sparsity_report.findings.pair_findings import pair_findings
    from sparsity_report.findings.study_findings import study_findings
    from sparsity_report.study.comparison import Study
    from sparsity_report.study.files.json_files import value_or_saved
    from sparsity_report.study.pairs.pair import Pair
    from sparsity_report.study.published_scores import Reproduction

    if isinstance(study, Reproduction):
        return study.sentences()
    value = value_or_saved("summarize", study, Study, Pair, Reproduction)
    return [*(pair_findings(value) if isinstance(value, Pair) else study_findings(value))]
