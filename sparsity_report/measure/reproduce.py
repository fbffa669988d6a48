"""Reproduction of published perplexities, from a study or by pruning and scoring a model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sparsity_report.counting.policies.policy_registry import read_method
from sparsity_report.counting.pruning import Inputs, Pruning
from sparsity_report.deferred import nn
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.published_scores import (
    Reproduction,
    compare_published,
    compare_study,
    published_table,
)
from sparsity_report.study.variants import dense, masked
from sparsity_report.weights.weights import Weights

if TYPE_CHECKING:
    from sparsity_report.counting.progress import Progress
    from sparsity_report.counting.pruning import Calibration
    from sparsity_report.measure.texts import Text


def reproduce(
    model: StudyFigures | Weights | str | os.PathLike[str] | nn.Module,
    paper: str,
    *,
    published_model: str | None = None,
    text: Text | None = None,
    calibration: Text | Calibration | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Compare published perplexities of a model with measured ones.

    A study is compared by the scores in ``study.quality`` that have the paper's protocol. A model
    is scored by that protocol: dense, and pruned by each of the paper's methods that runs here.
    Methods such as SparseGPT do not, and Wanda and OWL only with `calibration`.

    The dense row decides: unless it reproduces, the model, its text or its number type is another
    one, and the other rows cannot be compared. A row reproduces if it differs by at most the
    rounding of the printed digits and 0.5 % for dense, 2.5 % for pruned models. Number types and
    tokenizers move a dense perplexity by 0.1 %, other calibration data a pruned one by 2.3 %.

    Sheared LLaMA (arXiv:2310.06694) is not among the papers: its perplexities are of a held-out
    part of RedPajama, which no protocol here scores.

    Parameters
    ----------
    model : Study, Weights, path, Hub id or nn.Module
        A study, or a model to prune and score.
    paper : {"sparsegpt", "wanda", "owl", "llm-pruner"}
        The paper.
    published_model : str, optional
        Hub id of the model in the paper, if the model has another name.
    text : str, pathlib.Path, iterable of str, dataset or 1-d tensor of token ids, optional
        The data set of the protocol, see :func:`perplexity`. Not used for a study. A module in
        memory, which has no tokenizer, needs token ids.
    calibration : Calibration or text, optional
        Text for Wanda and OWL, or the result of :func:`calibrate`. The papers use 128 windows of
        C4, as long as the model accepts.
    progress : callable, optional
        Called with work done, work in total and a name.

    Returns
    -------
    Reproduction
        ``rows`` has a verdict for each published figure.

    Raises
    ------
    SparsityReportError
        The paper or the model is not in the table, the study has no score by the paper's protocol,
        or the model cannot be scored, see :func:`perplexity`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.reproduce(sr.load(), "wanda")
    Traceback (most recent call last):
    ...
    sparsity_report.errors.SparsityReportError: demo: not one model with perplexities of wanda, ...
    """
    if isinstance(model, StudyFigures):
        return compare_study(paper, model, published_model)
    from sparsity_report.measure.calibration import calibrated
    from sparsity_report.measure.perplexity import perplexity

    first = dense(model)
    weights = first.weights
    _, table = published_table(paper, published_model or weights.name)
    if calibration is not None:
        calibration = calibrated(weights, calibration, progress, {})
    inputs, prunings = Inputs(calibration, progress), dict[str, Pruning]()
    for score in table.rows:
        policy = read_method(score.policy)
        if policy and (calibration or not policy.calibrates):
            prunings[score.label] = policy.prune(weights, score.sparsity or 0.0, inputs)
    variants = [first, *(masked(p, name=label) for label, p in prunings.items())]
    quality = perplexity(variants, text, protocol=table.protocol, progress=progress)
    texts = {label: p.basis.name if p.basis else None for label, p in prunings.items()}
    return compare_published(weights.name, table, quality, texts)
