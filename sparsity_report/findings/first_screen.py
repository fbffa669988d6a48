"""The head of a report: model, treatment, verdict, figures, next step, runtimes and alerts."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sparsity_report.counting.pruning_policies import read_method
from sparsity_report.findings.audit import audit_findings
from sparsity_report.findings.checkpoint_findings import both, is_identical
from sparsity_report.findings.storage_findings import runtime_findings
from sparsity_report.findings.strip_text import strip_texts
from sparsity_report.findings.training_findings import training_steps
from sparsity_report.findings.verdict import WRECKED, labels_of, ratio_ends, verdict
from sparsity_report.study.derived.heads_experts import kept_words
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.policy_names import EXISTING
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.display_names import method_name
from sparsity_report.words.number_format import plain
from sparsity_report.words.sentences import say

# Most alerts, and most levels that are listed one by one.
_ALERTS, _LISTED = 4, 3
# Sides of a matrix that PyTorch's 2:4 kernels accept are multiples of this.
_TILE = 64


class Line(NamedTuple):
    """A line below the figures: a label, a sentence, and code to run, which may be empty."""

    label: str
    text: str
    code: str = ""

    def __str__(self) -> str:
        """Return the line as plain text."""
        return f"{self.label}: {' '.join(filter(None, self[1:]))}"


def first_screen(study: StudyFigures) -> dict[str, Any]:
    """Return ``kicker``, ``verdict``, ``strip``, ``lines`` and ``alerts`` of a study.

    ``all_lines`` are the lines, and the alerts as a line.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> first, *_ = first_screen(sr.compare(sr.dense(sr.load()), sr.csr(pruning)))["lines"]
    >>> first.label, first.code
    ('Next', 'sparsity-report run MODEL --sparsity 30% --policy magnitude --perplexity')
    """
    steps = [Line(say("line.next"), *step) for step in _steps(study)][:1]
    runtimes = " ".join(runtime_findings(study))
    lines = [*steps, *([Line(say("line.runs_as"), runtimes)] if runtimes else [])]
    alerts = [each for each in audit_findings(study) if each.alert][:_ALERTS]
    listed = " · ".join(each.alert for each in alerts)
    return {
        "kicker": [*_kicker(study)],
        "verdict": verdict(study),
        "strip": strip_texts(study.facts),
        "lines": lines,
        "alerts": alerts,
        "all_lines": [*lines, *([Line(say("page.alerts"), listed)] if alerts else [])],
    }


def model_names(study: StudyFigures) -> str:
    """Return the shortened names of a study's models, or of two checkpoints with an arrow."""
    if study.history is not None:
        return short_name(study.variants["model"].iloc[0])
    if study.matches is not None:
        return both(study)
    return ", ".join(clip(name, 60) for name in dict.fromkeys(study.variants["model"]))


def _kicker(study: StudyFigures) -> Iterator[str]:
    """Yield the models, their sizes and packed formats, and how they were pruned."""
    facts, totals = study.facts, study.totals
    yield model_names(study)
    sizes = totals.drop_duplicates("total")[["total", "active_total"]]
    is_mixture = any(map(facts.is_mixture, facts.layouts)) and sizes["active_total"].notna().all()
    active = sizes["active_total"].tolist()
    key = "kicker.active_parameters" if is_mixture else "kicker.parameters"
    yield say(key, totals=sizes["total"].tolist(), active=active)
    if packings := facts.packings():
        yield say("kicker.packed", packings=packings)
    methods = study.variants.loc[study.variants["method"].ne(EXISTING), "method"].dropna()
    names = [*methods.map(method_name).unique()]
    opened = {name for group in facts.already_pruned.values() for name in group}
    levels = sorted({facts.level(n) for n in facts.contenders if n not in opened})
    if names and levels:
        key = "kicker.levels" if len(levels) <= _LISTED else "kicker.level_span"
        number = facts.total(facts.headline, "prunable_total")
        yield say(key, methods=names, levels=levels, number=number)
    elif rules := study.variants["expert_score"].dropna().tolist():
        scores = [*dict.fromkeys(rule.split(", ")[0] for rule in rules)]
        kept = sorted({int(rows["is_kept"].sum()) for rows in facts.lacking.values()})
        experts = len(next(iter(facts.lacking.values())))
        yield say("kicker.experts", methods=scores, kept=kept, experts=experts)
    elif study.history is not None:
        yield say("kicker.steps", steps=study.history["step"].tolist())
    elif study.matches is None:
        yield say("kicker.came_pruned" if opened else "kicker.as_opened")


def _steps(study: StudyFigures) -> Iterator[tuple[str, str]]:
    """Yield advice with the code that follows it, the most useful first."""
    facts = study.facts
    if study.history is not None:
        yield from training_steps(study.history)
    if study.matches is not None:
        if not (is_identical(study) or any(map(facts.lacks_head, facts.sides))):
            key = "next.score_pair" if study.history is None else "next.score_trained"
            yield say(key), "sparsity-report run BASE PRUNED --perplexity --latency"
        return
    variant = facts.pruning or facts.headline
    if not (facts.total(variant, "prunable_total") and facts.total(variant, "nonzero")):
        return
    if _has_kernels(study, variant):
        yield say("next.two_four"), "torch.sparse.to_sparse_semi_structured"
    if study.quality is not None:
        yield from _after_scores(study) if facts.contenders else _after_experts(study)
    elif facts.lacks_head(variant):
        if study.tasks is None:
            yield say("next.score_tasks"), "study.with_measured(tasks=frame)"
    elif variant in facts.already_pruned and not facts.lacking:
        yield say("next.score_beside_base"), "sparsity-report run BASE MODEL --perplexity"
    elif command := _command(study) or ("--perplexity" if facts.lacking else ""):
        yield say("next.score"), command
    elif study.variants["method"].isna().all():
        yield say("next.prune"), "sparsity-report run MODEL --sparsity 30%"
    if study.latency is None:
        yield say("next.time"), "--latency"


def _has_kernels(study: StudyFigures, variant: str) -> bool:
    """Return whether a variant is stored as 2:4 in matrices of sizes that PyTorch accepts."""
    stored = study.runtimes.loc[study.runtimes["variant"] == variant, "layout"]
    shapes = study.facts.prunable(variant)["shape"]
    is_tiled = all(size % _TILE == 0 for shape in shapes for size in shape)
    return "2:4" in set(stored) and is_tiled and not study.facts.packings(variant)


def _command(study: StudyFigures, shares: Sequence[float] = (), policies: str = "") -> str:
    """Return the command that prunes as in the study and scores it; empty if there is none.

    Other sparsities and policies replace those of the study.
    """
    rows = study.variants.dropna(subset="method").drop_duplicates("method")
    known = [read_method(method) for method in rows["method"]]
    if not known or any(each is None or each.name == EXISTING for each in known):
        return ""
    options = policies or ",".join(dict.fromkeys(each.option for each in known if each))
    levels = shares or study.variants["asked_sparsity"].dropna().unique()
    texts = ",".join(f"{plain(round(share, 3), 2)}%" for share in levels)
    if all(each.pattern for each in known if each):
        return "" if shares else f"sparsity-report run MODEL --policy {options} --perplexity"
    return f"sparsity-report run MODEL --sparsity {texts} --policy {options} --perplexity"


def _after_experts(study: StudyFigures) -> Iterator[tuple[str, str]]:
    """Yield advice on the number of experts from the lowest perplexity of each against dense."""
    facts, changes = study.facts, []
    for names in facts.expert_lists:
        scores = [score for name in names if (score := facts.scored(name))]
        best = min(scores, key=lambda each: each.perplexity, default=None)
        if best and (change := facts.paired(best).get(best.variant, facts.original)):
            changes.append((facts.total(names[0], "total") or 0.0, *change.ratio, change.variant))
            correction = facts.paired(best).correction
    kept = min((change for change in changes if change[2] <= 1), default=None)
    if changes and kept in {None, min(changes)}:  # otherwise fewer were measured, too
        _, _, low, high, name = kept or max(changes)
        ends = {"level": kept_words(facts.lacking[name]), **ratio_ends(low, high)}
        key = "next.keep_fewer" if kept else "next.keep_more"
        yield say(key, best=labels_of(study, [name])[0], correction=correction, **ends), ""


def _after_scores(study: StudyFigures) -> Iterator[tuple[str, str]]:
    """Yield advice on sparsity and policy from the intervals of perplexity against dense."""
    facts = study.facts
    changes = []
    for name in (n for n in facts.contenders if n not in facts.already_pruned):
        score = facts.scored(name)
        if score and (change := facts.paired(score).get(score.variant, facts.original)):
            changes.append((facts.level(name), *change.ratio, name))
    if not changes:
        return
    top = max(change[0] for change in changes)
    kept = max((change for change in changes if change[2] <= 1), default=None)
    share, ratio, low, high, name = kept or min(changes)
    ends = {"share": share, **ratio_ends(low, high), "best": labels_of(study, [name])[0]}
    if kept:
        yield say("next.prune_more" if share == top else "next.prune_less", **ends), ""
    elif share < top and (command := _command(study, [share / 3, 2 * share / 3])):
        yield say("next.prune_below", **ends), command
    elif any(map(facts.packings, facts.contenders)):
        yield say("next.prune_float"), ""
    elif (
        len(facts.contenders) == 1
        and ratio < WRECKED
        and (command := _command(study, policies="layerwise,wanda"))
    ):
        yield say("next.compare_policies"), command
    elif command := _command(study, [share / 2]):
        yield say("next.prune_half"), command
