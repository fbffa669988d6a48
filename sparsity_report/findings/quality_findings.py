"""Findings about measured quality: continuations, tasks, sensitivity."""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any

from sparsity_report.findings.verdict import labels_of
from sparsity_report.study.derived.paired_scores import Paired, ranked_parts
from sparsity_report.study.derived.paired_tasks import winners
from sparsity_report.study.derived.protocol_scores import by_protocol
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.sentences import say

# Characters of a prompt and of its continuation that are shown.
_CHARACTERS = 200
# Prompts whose continuations are sentences; a table has all.
_PROMPTS = 2


def paired_findings(study: StudyFigures) -> Iterator[str]:
    """Yield comparisons of prunings of one sparsity, or the reasons for which they do not pair.

    The lowest perplexity is compared with the next one, and if the text does not separate these,
    with the first that it separates.
    """
    facts = study.facts
    for scores in by_protocol(study.quality):
        pairs = facts.paired(records(scores)[0])
        for names in pairs.rivals:
            level = facts.level_of(names)
            if reason := pairs.why(names):
                yield say("finding.unpaired", level=level, reason=say(f"unpaired.{reason}"))
            else:
                yield from _compared(study, pairs, names, level)
            seeded = [label.startswith("random, seed ") for label in labels_of(study, names)]
            if sum(seeded) > 1:
                drawn = scores["perplexity"].set_axis(scores["variant"])[[*compress(names, seeded)]]
                size = study.facts.vocabulary(names[0])
                ends = {"low": (drawn.min(), size), "high": (drawn.max(), size)}
                yield say("experts.seeds", level=level, number=len(drawn), **ends)


def _compared(
    study: StudyFigures, pairs: Paired, names: Sequence[str], level: str
) -> Iterator[str]:
    """Yield the comparisons of the lowest perplexity of rivals."""
    others = [other for name in names[1:] if (other := pairs.get(name, names[0]))]
    labels = dict(zip(names, labels_of(study, names), strict=True))
    for other in dict.fromkeys([*others[:1], *[each for each in others if each.is_apart][:1]]):
        gap, low, high = other.gap
        key = "finding.beats" if other.is_apart else "finding.not_separated"
        if other.is_apart and other.variant in pairs.guessing:
            key = "finding.beats_guessing"
        sides = {"variant": labels[names[0]], "rival": labels[other.variant]}
        ends = {"gap": gap, "low": low, "high": high, "correction": pairs.correction}
        yield say(key, **sides, level=level, **ends)


def continuations(study: StudyFigures) -> Iterator[str]:
    """Yield the greedy continuations of the first prompts with the variants that wrote them."""
    if (frame := study.continuations) is None:
        return
    frame = frame[frame["prompt"].isin(frame["prompt"].unique()[:_PROMPTS])]
    for (prompt, text), rows in frame.groupby(["prompt", "continuation"], sort=False):
        texts = {"prompt": _on_one_line(str(prompt)), "continuation": _on_one_line(str(text))}
        yield say("finding.continuation", variants=rows["variant"].tolist(), **texts)


def _on_one_line(text: str) -> str:
    return clip(" ".join(text.split()), _CHARACTERS)


def task_pairs(study: StudyFigures) -> Iterator[str]:
    """Yield the paired difference of most documents for each pair, and prunings that beat all."""
    frame = study.task_pairs
    if frame is None or (known := frame[frame["p"].notna()]).empty:
        return
    prunings = study.facts.contenders
    for pair, rows in known.groupby(["variant", "against"], sort=False):
        if len(prunings) > 2 and {*pair} <= {*prunings}:
            continue
        row = records(rows.loc[[rows["documents"].astype(int).idxmax()]])[0]
        key = "finding.tasks_separated" if row["separated"] else "finding.tasks_not_separated"
        columns = ("variant", "against", "metric", "documents", "lost", "gained")
        figures = {column: row[column] for column in (*columns, "difference", "low", "high")}
        task = row["task"] or say("label.pooled_tasks", tasks=row["tasks"])
        yield say(key, task=task, **figures)
    best: dict[str, list[str]] = {}
    for (task, *_), variant in winners(frame, study.facts.shares(prunings)).items():
        if task is not None:
            best.setdefault(variant, []).append(str(task))
    for variant, tasks in best.items():
        yield say("finding.task_winner", variant=variant, tasks=list(dict.fromkeys(tasks)))


def sensitivities(study: StudyFigures) -> Iterator[str]:
    """Yield the parts that cost most and least when pruned alone."""
    frame = study.sensitivity
    if frame is None or len(frame) < 2:
        return
    increase = frame["nll_increase"].astype(float)
    worst, least = frame.iloc[int(increase.argmax())], frame.iloc[int(increase.argmin())]
    ends: dict[str, Any] = {
        "worst": (worst["by"], worst["part"]),
        "least": (least["by"], least["part"]),
    }
    ends |= {"most": worst["nll_increase"], "little": least["nll_increase"]}
    level = float(round(frame["sparsity"].iloc[0], 4))
    key, ranks = "finding.sensitivity_extremes", ranked_parts(frame)
    if ranks is not None:
        first, parts = int((ranks["rank"] == 1).sum()), len(ranks)
        key = "finding.sensitivity_extremes_shared"
        if first == 1:
            key = "finding.sensitivity_extremes_apart"
        elif first == parts:
            key = "finding.sensitivity_not_separated"
        ends |= {"first": first, "parts": parts}
    yield say(key, level=level, **ends)
