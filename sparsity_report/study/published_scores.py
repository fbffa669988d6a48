"""Published perplexities of pruned models, and their comparison with measured ones.

``published_scores.json`` holds them: per paper, tables of one model by one protocol. Each table has
the address where a person looked its figures up, and the date. Figures keep their printed digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.study.derived.protocol_scores import by_protocol
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.words.sentences import say

DENSE = "dense"
# Relative tolerances. Half precision, kernels and tokenizers move a dense perplexity by 0.1 %.
# Seeds move a pruned one by 1 % (SparseGPT, appendix A) and other calibration data by 2.3 %
# (github.com/locuslab/wanda/issues/45).
_DENSE_TOLERANCE, _PRUNED_TOLERANCE = 0.005, 0.025
# Largest difference of sparsities that count as one: Wanda rounds in every row.
_ALIKE = 0.005


class PublishedScore(NamedTuple):
    """A published perplexity.

    Attributes
    ----------
    label : str
        The method as the paper calls it.
    policy : str or None
        The same method in ``study.quality``; ``"dense"``, or None for one that cannot be run here.
    sparsity : float or None
        Share of the pruned weights; None if the paper removes parameters.
    printed : str
        The perplexity with the digits that are printed.
    """

    label: str
    policy: str | None
    sparsity: float | None
    printed: str

    @property
    def decimals(self) -> int:
        """Printed decimal places."""
        return len(self.printed.partition(".")[2])

    @property
    def tolerance(self) -> float:
        """Relative difference that rounding, number types and calibration explain."""
        rounding = 0.5 * 10.0**-self.decimals / float(self.printed)
        return rounding + (_DENSE_TOLERANCE if self.policy == DENSE else _PRUNED_TOLERANCE)


class PublishedTable(NamedTuple):
    """The perplexities of one model in a paper; the first row is dense."""

    paper: str
    arxiv: str
    models: tuple[str, ...]
    protocol: str
    source: str
    table: str
    looked_at: str
    rows: tuple[PublishedScore, ...]


def _read(path: Path) -> dict[str, list[PublishedTable]]:
    papers = json.loads(path.read_text(encoding="utf-8"))
    return {
        key: [
            PublishedTable(paper["title"], paper["arxiv"], **{
                **table,
                "models": tuple(table["models"]),
                "rows": tuple(PublishedScore(*row) for row in table["rows"]),
            })
            for table in paper["tables"]
        ]
        for key, paper in papers.items()
    }  # fmt: skip


#: Tables by the key of the paper.
PAPERS = _read(Path(__file__).with_suffix(".json"))


def published_table(paper: str, *names: str) -> tuple[str, PublishedTable]:
    """Return the one name of a model that is in a paper's tables, and its table.

    A copy of a model has another owner, so the last part of a Hub id counts.

    Raises
    ------
    SparsityReportError
        The paper is unknown, or not exactly one name is in its tables.

    Examples
    --------
    >>> published_table("wanda", "NousResearch/Llama-2-7b-hf")[1].rows[0].printed
    '5.12'
    """
    if (tables := PAPERS.get(str(paper).casefold())) is None:
        raise SparsityReportError(
            f"there is no paper {paper!r} to reproduce; use one of {', '.join(PAPERS)}"
        )
    by_name = {_last(model): table for table in tables for model in table.models}
    known = {name: by_name[_last(name)] for name in names if _last(name) in by_name}
    if len(known) != 1:
        models = ", ".join(table.models[0] for table in tables)
        given = printable(", ".join(names), 200) or "a model without a name"
        raise SparsityReportError(
            f"{given}: not one model with perplexities of {paper}, which are of {models}; name "
            "the one it is (published_model=)"
        )
    return next(iter(known.items()))


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].casefold()


@dataclass(frozen=True, eq=False, repr=False)
class Reproduction:
    """Published perplexities of a model beside measured ones.

    Attributes
    ----------
    model : str
        The measured model.
    table : PublishedTable
        Paper, protocol and source of the published figures.
    rows : pandas.DataFrame
        One row per published figure, dense first: ``method, sparsity, published, measured,
        difference, tolerance, verdict, policy, calibration``. ``difference`` and ``tolerance``
        are relative to the published figure. ``verdict`` is ``"yes"``, ``"no"``, ``"not
        measured"``, or ``"not comparable"`` unless the dense figure reproduces. ``policy`` is the
        method that was measured, ``calibration`` its text; null if there is none.

    Examples
    --------
    >>> import pandas as pd
    >>> name, table = published_table("wanda", "NousResearch/Llama-2-7b-hf")
    >>> empty = pd.DataFrame(columns=["method", "published", "measured", "verdict"])
    >>> Reproduction(name, table, empty).table.arxiv
    '2306.11695'
    """

    model: str
    table: PublishedTable
    rows: pd.DataFrame

    def __repr__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """Return the findings about the reproduction as sentences, dense first.

        Returns
        -------
        list of str
            Sentences.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> len(sr.reproduce(study, "wanda").sentences()) > 1  # doctest: +SKIP
        True
        """
        table, rows = self.table, records(self.rows)
        origin = {"model": self.model, "paper": table.paper, "protocol": table.protocol}
        written = [
            {**row, **origin, "digits": f",.{score.decimals}f"}
            for row, score in zip(rows, table.rows, strict=True)
        ]
        findings = [say(f"reproduction.dense.{rows[0]['verdict']}", **written[0])]
        findings += [
            say(f"reproduction.{r['verdict']}", **r)
            for r in written[1:]
            if r["verdict"] in {"yes", "no"}
        ]
        if missing := [row["method"] for row in rows[1:] if row["verdict"] == "not measured"]:
            findings.append(say("reproduction.not_measured", methods=missing))
        if texts := [*self.rows["calibration"].dropna().unique()]:
            findings.append(say("reproduction.calibration", texts=texts, paper=table.paper))
        where = {"arxiv": table.arxiv, "source": table.source, "looked_at": table.looked_at}
        return [*findings, say("reproduction.source", paper=table.paper, **where)]


def reproduce(
    study: StudyFigures, paper: str, *, published_model: str | None = None
) -> Reproduction:
    """Compare published perplexities of a model with those of a study.

    The scores in ``study.quality`` that have the paper's protocol count, see :func:`perplexity`.
    Methods such as SparseGPT do not run here. The papers calibrate Wanda and OWL on 128 windows of
    C4, as long as the model accepts.

    The dense row decides: unless it reproduces, the model, its text or its number type is another
    one, and the other rows cannot be compared. A row reproduces if it differs by at most the
    rounding of the printed digits and 0.5 % for dense, 2.5 % for pruned models. Number types and
    tokenizers move a dense perplexity by 0.1 %, other calibration data a pruned one by 2.3 %.

    Sheared LLaMA (arXiv:2310.06694) is not among the papers: its perplexities are of a held-out
    part of RedPajama, which no protocol here scores.

    Parameters
    ----------
    study : Study
        A study with perplexities.
    paper : {"sparsegpt", "wanda", "owl", "llm-pruner"}
        The paper.
    published_model : str, optional
        Hub id of the model in the paper, if the model has another name.

    Returns
    -------
    Reproduction
        ``rows`` has a verdict for each published figure.

    Raises
    ------
    SparsityReportError
        The paper or the model is not in the table, or the study has no perplexities by the paper's
        protocol.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.reproduce(sr.compare(sr.dense(sr.load())), "wanda")
    Traceback (most recent call last):
    ...
    sparsity_report.errors.SparsityReportError: the study has no perplexities to compare; ...
    """
    if study.quality is None:
        raise SparsityReportError(
            "the study has no perplexities to compare; add them with study.with_measured(quality=…)"
        )
    # Scores of older files name no model.
    variants = study.variants.set_index("variant")
    named = study.quality["model"].fillna(study.quality["variant"].map(variants["model"]))
    models = [*map(str, named.dropna().unique())]
    if published_model is not None and len(models) == 1:
        model, (_, table) = models[0], published_table(paper, published_model)
    else:
        model, table = published_table(paper, *models)
    texts = dict(zip(variants.index, variants["basis"], strict=True))
    return compare_published(model, table, study.quality.assign(model=named), texts)


def compare_published(
    model: str, table: PublishedTable, quality: pd.DataFrame, texts: Mapping[str, str | None]
) -> Reproduction:
    """Compare published perplexities with the scores of one model.

    Parameters
    ----------
    model : str
    table : PublishedTable
    quality : pandas.DataFrame
        As of a study.
    texts : mapping
        The calibration text of each variant.

    Raises
    ------
    SparsityReportError
        No score is by the protocol of the paper.
    """
    mine = quality[(quality["model"] == model) & quality["perplexity"].notna()]
    groups = list(by_protocol(mine[mine["protocol"] == table.protocol]))
    if not groups:
        used = ", ".join(map(str, mine["protocol"].unique())) or "no protocol"
        raise SparsityReportError(
            f"{model} was scored by {used}, but {table.paper} by {table.protocol}; score it with "
            f"perplexity(…, protocol={table.protocol!r})"
        )
    # The first text and number type for which dense was scored count.
    scores = next((g for g in groups if not _like(table.rows[0], g).empty), groups[0])
    rows, reproduces = [], False
    for score in table.rows:
        matches, published = _like(score, scores), float(score.printed)
        measured = None if matches.empty else float(matches["perplexity"].iloc[0])
        difference = None if measured is None else measured / published - 1
        verdict = "not measured"
        if difference is not None and (score.policy == DENSE or reproduces):
            # The last digits of floats must not decide at the bound itself.
            verdict = "yes" if abs(difference) <= score.tolerance + 1e-9 else "no"
        elif difference is not None:
            verdict = "not comparable"
        reproduces |= score.policy == DENSE and verdict == "yes"
        text = None if matches.empty else texts.get(str(matches["variant"].iloc[0]))
        rows.append((
            *(score.label, score.sparsity, published, measured, difference, score.tolerance),
            *(verdict, None if matches.empty else score.policy, text),
        ))  # fmt: skip
    columns = "method sparsity published measured difference tolerance verdict policy calibration"
    frame = pd.DataFrame(rows, columns=columns.split())
    numbers = ["sparsity", "published", "measured", "difference", "tolerance"]
    return Reproduction(model, table, frame.astype(dict.fromkeys(numbers, "float64")))


def _like(score: PublishedScore, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores by the method and at the sparsity of a published one."""
    if score.policy is None or score.sparsity is None:
        return scores.iloc[:0]
    policies = scores["method"].fillna(DENSE)
    return scores[
        (policies == score.policy) & ((scores["sparsity"] - score.sparsity).abs() <= _ALIKE)
    ]
