"""Pruning Report 1.0: the questions of a careful reviewer, with the answers that a study holds."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.findings.variant_names import group_names
from sparsity_report.hooks import Presentable
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.policy_names import EXISTING
from sparsity_report.study.derived.protocol_scores import by_protocol
from sparsity_report.study.files.json_files import value_or_saved
from sparsity_report.study.layers import records
from sparsity_report.words.sentences import say

ANSWERED, NOT_STATED, NOT_APPLICABLE = "answered", "not stated", "not applicable"
# Methods that do not tell how the zeros were chosen.
_OPAQUE = (EXISTING, "imported_masks")
_TASK = ["task", "metric", "filter", "n_shot"]
# None if the question does not apply; empty if the study holds no answer.
_Answers = list[str] | None


class Item(NamedTuple):
    """A question of the checklist.

    Attributes
    ----------
    key : str
        Name of the question, such as ``"denominator"``.
    state : str
        ``"answered"``, ``"not stated"`` or ``"not applicable"``.
    answers : tuple of str
        Facts of the study.
    """

    key: str
    state: str
    answers: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """The question as a noun phrase."""
        return say(f"checklist.{self.key}")


@dataclass(frozen=True, eq=False, repr=False)
class Checklist(Presentable):
    """Questions of a careful reviewer of a pruned model, and the answers that a study holds.

    Attributes
    ----------
    study : Study
    items : tuple of Item
        The questions in order, each with ``key``, ``state`` and ``answers``.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> report = sr.checklist(sr.compare(sr.dense(sr.load()), sr.masked(pruning)))
    >>> report.items[0].key, report.items[0].state
    ('weights', 'answered')
    """

    study: Study
    items: tuple[Item, ...]

    @property
    def answered(self) -> int:
        """Number of questions that the study answers.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> report = sr.checklist(sr.compare(sr.dense(sr.load()), sr.masked(pruning)))
        >>> report.answered
        6
        """
        return sum(item.state == ANSWERED for item in self.items)

    @property
    def applicable(self) -> int:
        """Number of questions that apply to the study.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> report = sr.checklist(sr.compare(sr.dense(sr.load()), sr.masked(pruning)))
        >>> report.applicable
        10
        """
        return sum(item.state != NOT_APPLICABLE for item in self.items)

    @property
    def title(self) -> str:
        """The numbers of answered and of applicable questions.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> report = sr.checklist(sr.compare(sr.dense(sr.load()), sr.masked(pruning)))
        >>> report.title.key
        'checklist.title'
        """
        return say("checklist.title", answered=self.answered, applicable=self.applicable)


def checklist(study: Study | str | os.PathLike[str]) -> Checklist:
    """Return the reporting checklist "Pruning Report 1.0" with the answers that a study holds.

    A question about prunings counts as answered if the study answers it for all of them. Nothing
    is guessed: without a fact, the answer is "not stated".

    Parameters
    ----------
    study : Study or path-like
        From :func:`compare` or :func:`read_study`, or the path of a saved study.

    Returns
    -------
    Checklist
        The questions with their answers; a notebook cell shows them.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> report = sr.checklist(sr.compare(sr.dense(sr.load()), sr.masked(pruning)))
    >>> report.answered, report.applicable
    (6, 10)
    >>> [item.key for item in report.items if item.state == "not stated"]
    ['protocol', 'baseline', 'interval', 'clock']
    """
    read: Study = value_or_saved("checklist", study, Study)
    known = _Known(read)
    items = []
    for key, answer in QUESTIONS.items():
        answers = answer(known)
        state = NOT_APPLICABLE if answers is None else ANSWERED if answers else NOT_STATED
        items.append(Item(key, state, tuple(answers or ())))
    return Checklist(read, tuple(items))


class _Known:
    """The distinct prunings of a study, and answers by variant."""

    def __init__(self, study: Study) -> None:
        self.study, self.facts = study, study.facts
        totals = {row["variant"]: row for row in records(study.totals)}
        self.rows = {
            row["variant"]: totals[row["variant"]] | row for row in records(study.variants)
        }
        # Zeros of an opened model that rounding explains are no pruning.
        opened = {name for names in self.facts.already_pruned.values() for name in names}
        self.prunings = [
            name for name in self.facts.prunings if self.rows[name]["method"] or name in opened
        ]
        self.methods = {name: self.rows[name]["method"] or EXISTING for name in self.prunings}
        self.is_opaque = any(method in _OPAQUE for method in self.methods.values())

    def each(self, names: Iterable[str], answer: Callable[[str], str | None]) -> list[str]:
        """Return the answers for all names, alike ones once; none if one is unknown."""
        answers = [(answer(name), name) for name in names]
        if any(known is None for known, _ in answers):
            return []
        groups = group_names((known, name) for known, name in answers if known)
        return [say(a.key, variants=alike, **a.values) for a, alike in groups.items()]

    def of_prunings(self, answer: Callable[[str], str | None]) -> _Answers:
        return self.each(self.prunings, answer) if self.prunings else None

    def cells(self, names: Iterable[str], key: str, columns: str) -> list[str]:
        """Return answers from columns of the variants, none if a cell is unknown."""

        def answer(name: str) -> str | None:
            values = {column: self.rows[name][column] for column in columns.split()}
            return None if pd.isna([*values.values()]).any() else say(key, **values)

        return self.each(names, answer)


def _weights(known: _Known) -> _Answers:
    keys = ["model", "source", "fingerprint"]
    rows = known.study.variants[keys].drop_duplicates("fingerprint")
    return [say("checklist.weights_answer", **row) for row in records(rows)]


def _denominator(known: _Known) -> _Answers:
    shares = "sparsity_prunable sparsity_non_embedding sparsity_model"
    columns = f"{shares} prunable_total non_embedding_total total"
    names = known.prunings or [known.facts.baseline]
    return known.cells(names, "checklist.denominator_answer", columns)


def _scope(known: _Known) -> _Answers:
    columns = "prunable_total total"
    return known.cells(known.prunings, "checklist.scope_answer", columns) or None


def _method(known: _Known) -> _Answers:
    names = [] if known.is_opaque else known.prunings
    answers = known.cells(names, "checklist.method_answer", "method asked_sparsity")
    return answers if known.prunings else None


def _training(known: _Known) -> _Answers:
    """Return that a policy of this program trains nothing; unknown of models pruned elsewhere."""
    return known.of_prunings(
        lambda name: None if known.methods[name] == EXISTING else say("checklist.training_answer")
    )


def _calibration(known: _Known) -> _Answers:
    columns = "basis basis_fingerprint basis_windows basis_window"
    # A policy that needs a text names it.
    names = [name for name in known.prunings if pd.notna(known.rows[name]["basis"])]
    if known.is_opaque or not names:
        return [] if known.is_opaque else None
    return known.cells(names, "checklist.calibration_answer", columns)


def _seed(known: _Known) -> _Answers:
    parts = {name: method.partition("seed ")[2] for name, method in known.methods.items()}
    seeds = {name: part.partition(",")[0] for name, part in parts.items() if part}
    if known.is_opaque or not seeds:
        return [] if known.is_opaque else None
    return known.each(seeds, lambda name: say("checklist.seed_answer", seed=seeds[name]))


def _protocol(known: _Known) -> _Answers:
    study, scored = known.study, set()
    answers = []
    for rows in by_protocol(study.quality):
        row = records(rows)[0]
        text = row["text"], row["text_fingerprint"]
        answers.append(say("caption.passage", **row | {"text": text}))
        scored |= {*rows["variant"]}
    if study.tasks is not None:
        keys = ["harness", "harness_version", "n_shot"]
        tasks = study.tasks.dropna(subset=keys)
        for _, rows in tasks.groupby(keys, sort=False):
            names = list(dict.fromkeys(rows["task"]))
            about = {key: records(rows)[0][key] for key in keys}
            answers.append(say("checklist.tasks_answer", tasks=names, **about))
        scored |= {*tasks["variant"]}
    names = known.prunings or [known.facts.baseline]
    return answers if all(scored & {*known.facts.layouts_of(name)} for name in names) else []


def _baseline(known: _Known) -> _Answers:
    tasks, base = known.study.tasks, known.facts.original or known.facts.baseline

    def answer(name: str) -> str | None:
        score = known.facts.scored(name)
        if score and score.before:
            scores = {"before": score.before, "after": score.perplexity}
            return say("checklist.baseline_answer", base=base, **scores)
        if tasks is None or base in known.facts.layouts_of(name):
            return None
        ran = [
            {*tasks.loc[tasks["variant"].isin(names), _TASK].astype(str).apply(tuple, axis=1)}
            for names in ([base], known.facts.layouts_of(name))
        ]
        same = ran[1] and ran[1] <= ran[0]
        return say("checklist.same_tasks_answer", base=base, count=len(ran[1])) if same else None

    return known.of_prunings(answer)


def _interval(known: _Known) -> _Answers:
    pairs, tasks = known.study.score_pairs, known.study.tasks
    paired = set() if pairs is None else {*pairs["variant"]}

    def answer(name: str) -> str | None:
        alike = known.facts.layouts_of(name)
        if paired.intersection(alike):
            return say("checklist.interval_answer")
        rows = None if tasks is None else tasks[tasks["variant"].isin(alike)]
        if rows is None or rows.empty or rows["stderr"].isna().any():
            return None
        return say("checklist.error_answer", count=len(rows))

    return known.of_prunings(answer)


def _layout(known: _Known) -> _Answers:
    return known.cells(known.rows, "checklist.layout_answer", "layout stored_bytes")


def _clock(known: _Known) -> _Answers:
    rows = known.study.latency
    if rows is None or rows[["control_low", "control_high"]].isna().any(axis=None):
        return []
    values: dict[str, Any] = {
        "low": rows["control_low"].min(), "high": rows["control_high"].max(),
        "runs": rows["runs"].min(),
    }  # fmt: skip
    places = records(rows[["machine", "threads", "cores"]].drop_duplicates())
    return [say("checklist.clock_answer", **place, **values) for place in places]


#: Answers by the key of their question, in order.
QUESTIONS: dict[str, Callable[[_Known], _Answers]] = {
    "weights": _weights,
    "denominator": _denominator,
    "scope": _scope,
    "method": _method,
    "training": _training,
    "calibration": _calibration,
    "seed": _seed,
    "protocol": _protocol,
    "baseline": _baseline,
    "interval": _interval,
    "layout": _layout,
    "clock": _clock,
}
