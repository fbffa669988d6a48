"""Audit of a study: the weaknesses that a careful reviewer would flag."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.counts import INFINITE, NOT_A_NUMBER
from sparsity_report.findings.checkpoint_findings import kept_patterns
from sparsity_report.findings.deployment_notes import ALL_ZERO, group_names, zero_parts
from sparsity_report.sparse.shares import ratio, zero_share, zero_shares
from sparsity_report.study.derived.zero_shot import doubts
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.frames import EDITED_STUDY, note_findings
from sparsity_report.study.layers import records
from sparsity_report.study.rounded_zeros import origin, rounded
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.sentences import say

# Key and values of a text, but for the names of variants.
_Flag = tuple[str, tuple[tuple[str, Any], ...]]
VERY_SPARSE = 0.95
# Families of the long and the short text of a flag.
_FAMILIES = ("audit", "alert")
# Sparsities of blocks that were pruned and of blocks that were not.
TOUCHED, UNTOUCHED = 0.05, 0.005
_EXCLUDED = ("embedding", "lm_head", "norm", "router", "other")


class Finding(NamedTuple):
    """A finding of the audit.

    Attributes
    ----------
    text : str
        Empty where another section of a report has it.
    alert : str
        A few words for the first screen; empty for a finding that it does not show.
    section : str
        Key of the section that holds the text.
    """

    text: str
    alert: str = ""
    section: str = "method"


def audit(study: StudyFigures) -> list[str]:
    """Return the findings of an audit, the gravest first; empty if there is nothing to flag.

    A finding about several variants names all of them.
    """
    return [finding.text for finding in audit_findings(study) if finding.text]


def audit_findings(study: StudyFigures) -> Iterator[Finding]:
    """Yield the findings of an audit with their alerts, the gravest first."""
    if note_findings(study.notes, {EDITED_STUDY}):
        yield Finding("", say("alert.edited"), "results")
    for key, alert in ((NOT_A_NUMBER, "alert.nan"), (INFINITE, "alert.infinite")):
        yield from (Finding(text, say(alert)) for text in note_findings(study.notes, {key}))
    yield from _calibrated_on_evaluation_text(study)
    yield from map(Finding, _doubtful_scores(study))
    yield from _unequal(study)
    yield from _all_zero(study)
    names = study.variants["variant"]
    main = study.facts.headline if study.matches is None else study.facts.sides[1]
    flags = group_names((flag, name) for name in names for flag in _flags(study, name))
    for (key, values), variants in flags.items():
        text, alert = (
            say(f"{family}.{key}", variants=variants, **dict(values)) for family in _FAMILIES
        )
        yield Finding(text, alert if main in variants else "")
    yield from _hidden(study)
    yield from _patterns(study)
    yield from map(Finding, _excluded(study))


def _flag(key: str, **values: Any) -> _Flag:
    """Return the key and the values of a text that may be about several variants."""
    return key, tuple((n, tuple(v) if isinstance(v, list) else v) for n, v in values.items())


def _flags(study: StudyFigures, variant: str) -> Iterator[_Flag]:
    """Yield the flags of one variant, without its name."""
    layers = study.facts.prunable(variant)
    yield from _some_blocks_only(layers)
    if names := layers.loc[layers["share"] > VERY_SPARSE, "module_name"].tolist():
        sizes = {"count": len(names), "layers": len(layers), "limit": VERY_SPARSE}
        yield _flag("very_sparse_layers", names=names, **sizes)
    yield from _tied_head(study.facts.layers(variant))


def _some_blocks_only(layers: pd.DataFrame) -> Iterator[_Flag]:
    sums = layers[layers["block"].notna()].groupby("block")[["weight_total", "weight_nonzero"]]
    weights = sums.sum()
    share = zero_shares(weights["weight_total"], weights["weight_nonzero"])
    touched, untouched = share > TOUCHED, share[share < UNTOUCHED]
    if touched.any() and not untouched.empty:
        yield _flag(
            "some_blocks_only",
            touched=int(touched.sum()),
            blocks=len(share),
            share=zero_share(*weights[touched].sum()),
            untouched=[str(block) for block in untouched.index],
        )


def _tied_head(layers: pd.DataFrame) -> Iterator[_Flag]:
    heads = layers[(layers["group"] == "lm_head") & layers["tied_to"].notna()]
    embeddings = layers[layers["group"] == "embedding"].set_index("module_name")["sparsity"]
    for head, owner in zip(heads["module_name"], heads["tied_to"], strict=True):
        share = float(embeddings.get(owner.rpartition(".")[0], 0.0))
        if share > TOUCHED:
            yield _flag("tied_head_pruned", head=head, share=share, owner=owner)


def _hidden(study: StudyFigures) -> Iterator[Finding]:
    """Yield weights near zero in formats that may not represent zero exactly."""
    for variant in study.variants["variant"]:
        for part in rounded(study.facts.layers(variant)):
            if not part.has_zero:
                source, values = origin(part), part._asdict()
                text = say(f"rounding.near_zeros.{source}", variant=variant, **values)
                yield Finding(text, say("alert.near_zeros", **values) if source == "more" else "")


def _patterns(study: StudyFigures) -> Iterator[Finding]:
    """Yield the N:M pattern of the headline, or the layers of two checkpoints that kept one."""
    facts = study.facts
    if study.history is not None:  # the verdict has its pattern
        return
    if study.matches is not None:
        for pattern, kept, layers in kept_patterns(study):
            counts = {"pattern": pattern, "matrices": kept, "among": layers}
            yield Finding("", say("alert.n_m", **counts), "survival")
        return
    zeros = facts.positions(facts.headline)
    if zeros and zeros.key == "n_m":
        yield Finding("", say("alert.n_m", **zeros.figures), "results")


def _unequal(study: StudyFigures) -> Iterator[Finding]:
    """Yield prunings that were scored side by side with different numbers of zeros."""
    if study.quality is None:
        return
    for row in records(study.quality.drop_duplicates(["text_fingerprint", "protocol"])):
        pairs = study.facts.paired(row)
        if any(pairs.why(rivals) == "zeros" for rivals in pairs.rivals):
            yield Finding("", say("alert.unequal_zeros"), "quality")


def _all_zero(study: StudyFigures) -> Iterator[Finding]:
    """Yield one finding about all variants for each kind of all-zero part."""
    zeros = [(name, study.facts.dead(name)) for name in study.variants["variant"]]
    known = {name: parts for name, parts in zeros if parts is not None}
    for kind in ALL_ZERO:
        counts = {
            name: dict.fromkeys(d.layers, 1) if kind == "layers" else getattr(d, kind).to_dict()
            for name, d in known.items()
        }
        sums = [sum(counts[n].values()) for n in study.facts.prunings or counts if n in counts]
        for text in zero_parts(kind, counts):
            yield Finding(text, say(f"alert.zero.{kind}", counts=[*set(sums)], most=max(sums)))


def _calibrated_on_evaluation_text(study: StudyFigures) -> Iterator[Finding]:
    if study.quality is None:
        return
    basis = study.variants[study.variants["basis_windows"].notna()]
    fingerprints = dict(zip(basis["variant"], basis["basis_fingerprint"], strict=True))
    scored = study.quality.drop_duplicates(["variant", "text_fingerprint"])
    same = scored[scored["text_fingerprint"] == scored["variant"].map(fingerprints)]
    for text, rows in same.groupby("text", sort=False):
        variants = rows["variant"].tolist()
        long = say("audit.calibrated_on_evaluation_text", variants=variants, text=clip(text))
        yield Finding(long, say("alert.calibrated_on_evaluation_text"))


def _doubtful_scores(study: StudyFigures) -> Iterator[str]:
    """Yield scores that may be those of another model, and tasks that were run in part."""
    if study.tasks is None:
        return
    for doubt in doubts(study.variants, study.tasks):
        key = "audit.scores_before_pruning" if doubt["before"] else "audit.scores_of_other_model"
        yield say(key, **doubt)
    parts = study.tasks[study.tasks["limited"].fillna(False).astype(bool)]
    for variant, rows in parts.groupby("variant", sort=False):
        tasks = list(dict.fromkeys(rows["task"]))
        yield say("audit.partial_tasks", tasks=tasks, variant=variant)
    if study.task_pairs is not None:
        columns = ["obstacle", "against"]
        for (obstacle, against), rows in study.task_pairs.groupby(columns, sort=False):
            names = {key: rows[key].unique().tolist() for key in ("variant", "task")}
            reason = say(f"unpaired.{obstacle}")
            yield say("audit.unpaired_tasks", against=against, reason=reason, **names)


def _excluded(study: StudyFigures) -> Iterator[str]:
    """Yield the parameters of each model that pruning excluded, by reason."""
    if study.variants["asked_sparsity"].isna().all():
        return
    models = study.variants.drop_duplicates("fingerprint")
    for variant, model in zip(models["variant"], models["model"], strict=True):
        layers = study.facts.layers(variant)
        total = layers["total"].sum()
        kept = layers["total"] - layers["weight_total"].where(layers["prunable"], 0)
        by_group = kept.groupby(layers["group"], sort=False).sum()
        parts = []
        for group, count in by_group[by_group > 0].items():
            has_text = group in _EXCLUDED
            key = f"audit.excluded.{group}" if has_text else "audit.excluded_biases_or_tied"
            reason = say(key, group=group)
            parts.append(say("audit.excluded_share", reason=reason, count=int(count)))
        if parts:
            number = int(kept.sum())
            counts = {"count": number, "total": int(total), "share": ratio(number, total)}
            yield say("audit.excluded_from_pruning", model=model, parts=parts, **counts)
