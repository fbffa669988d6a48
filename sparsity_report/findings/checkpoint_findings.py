"""Findings about two checkpoints, and titles and row names of their blocks and strips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sparsity_report.pairing.removed import KINDS
from sparsity_report.pairing.tally import ENOUGH, UNRELATED
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.frames import note_findings
from sparsity_report.study.layers import records
from sparsity_report.study.rounded_zeros import is_pruned
from sparsity_report.study.survival import gone_weights, head_is_embedding
from sparsity_report.untrusted.display_text import distinct_names, short_name
from sparsity_report.words.display_names import group_name
from sparsity_report.words.number_format import UNKNOWN, known
from sparsity_report.words.sentences import say, some

if TYPE_CHECKING:
    from sparsity_report.study.derived.removed_strips import BlockShares, StripRow

# Smallest change of a size that is stated.
_STATED = 0.005
# Alignments in which every weight keeps its place.
_IN_PLACE = {"name", "renamed", "fused"}
# Share that rounds to none.
_TRACE = 0.0005
_IN_BLOCKS = {"expert", "head", "kv_head", "channel"}


def checkpoint_verdict(study: StudyFigures) -> list[str]:
    r"""Return the verdict on two checkpoints: at most two complete sentences.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> study = sr.compare_checkpoints(weights, sr.n_m(weights, 2, 4))
    >>> print(str(checkpoint_verdict(study)[0]).replace("\u202f", " "))
    50.0 % of the 786 432 prunable weights became zero.
    """
    if is_identical(study):
        return [say("pair.verdict_identical")]
    parts = (_zeros, _lost_parts, _more_zeros, _size, _survivors)
    return [sentence for part in parts for sentence in part(study)][:2]


def checkpoint_topics(study: StudyFigures) -> dict[str, list[str]]:
    """Return the findings besides the verdict by topic: the section of a report that states them.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> study = sr.compare_checkpoints(weights, sr.n_m(weights, 2, 4))
    >>> checkpoint_topics(study)["survival"]  # the verdict has them
    []
    """
    topics = {
        "survival": (_overlap, changed_values, _patterns),
        "where": (_extremes,),
        "removed": (_removed, _against_base),
        "checkpoints": (_added, _doubts),
    }
    stated = checkpoint_verdict(study)
    return {
        topic: [finding for part in parts for finding in part(study) if finding not in stated]
        for topic, parts in topics.items()
    }


def models_of(study: StudyFigures) -> dict[str, str]:
    """Return the names of both models by side."""
    return dict(zip(("before", "after"), study.variants["model"].iloc[:2], strict=True))


def figure_of(study: StudyFigures, figure: str) -> dict[str, Any]:
    """Return the row of a figure of the whole model in ``study.changes``."""
    changes = study.facts.table("changes")
    return records(changes[changes["group"].isna() & (changes["figure"] == figure)])[0]


def share_of(number: int, total: int, weights: str) -> str:
    """Return a share of weights as a percentage with its counts; close to none or all, in counts.

    Examples
    --------
    >>> weights = say("pair.prunable_weights")
    >>> for number in (3, 500, 9997, 9999):
    ...     print(str(share_of(number, 9999, weights)).replace("\u202f", " "))
    3 of the 9 999 prunable weights
    5.0 % of the 9 999 prunable weights
    all but 2 of the 9 999 prunable weights
    all 9 999 prunable weights
    """
    values = {"number": number, "total": total, "rest": total - number, "weights": weights}
    if number == total:
        return say("pair.share_all", **values)
    if number > (1 - _TRACE) * total:
        return say("pair.share_all_but", **values)
    key = "pair.share_few" if number < _TRACE * total else "pair.share_percent"
    return say(key, share=number / total, **values)


def _removed(study: StudyFigures) -> Iterator[str]:
    total = figure_of(study, "prunable_weights")["before"]
    parts = [*removed_parts(study)]
    if not (taken := _taken(study)):
        if parts:
            yield say("pair.removed_besides_prunable", parts=parts)
        return
    zeros = study.facts.total(study.facts.sides[1], "sparsity_prunable")
    share = ratio(taken, total)
    key = "pair.removed_rest_sparse" if zeros else "pair.removed_rest_dense"
    yield say(key, share=share, total=total, parts=parts, zeros=zeros, **models_of(study))
    certainty = study.facts.table("removed")["certainty"].min()
    if certainty < 1:
        lower = math.floor(1000 * certainty) / 1000  # as it is written
        yield say("pair.matched_by_values", certainty=lower)


def _taken(study: StudyFigures) -> int:
    """Return the number of prunable weights of the base that were removed."""
    matches = study.facts.table("matches")
    return int(gone_weights(matches[matches["prunable"]]).sum())


def removed_parts(study: StudyFigures) -> Iterator[str]:
    """Yield the number of removed parts of each kind, and their blocks."""
    matches, removed = study.facts.table("matches"), study.facts.table("removed")
    left = matches[matches["after_name"].notna()]
    blocks_left = _number_of_blocks(left["module_name"], left["block"])
    for kind in KINDS:
        rows, key = removed[removed["kind"] == kind], f"pair.gone.{kind}"
        if rows.empty or kind == "layer":
            continue
        if kind not in _IN_BLOCKS:
            yield say(key, gone=len(rows), among=int(rows["among"].iloc[0]))
            continue
        modules = rows.groupby("module", sort=False)
        blocks = _number_of_blocks(rows["module"], rows["block"])
        every = "pair.every_block" if blocks == blocks_left > 0 else "pair.block_count"
        where, among = say(every, blocks=blocks), int(modules["among"].first().max())
        yield say(key, gone=modules.size().tolist(), among=among, where=where)
    if layers := removed.loc[removed["kind"] == "layer", "module"].tolist():
        yield say("format.some_names", names=layers)


def _number_of_blocks(modules: Iterable[str], numbers: Iterable[Any]) -> int:
    """Return the number of blocks; those of an encoder and a decoder have the same numbers."""
    places = ((f".{name}.", n) for name, n in zip(modules, numbers, strict=True) if known(n))
    return len({(path.partition(f".{n}.")[0], n) for path, n in places})


def _overlap(study: StudyFigures) -> Iterator[str]:
    zeros = records(study.facts.table("survival"))[0]
    if zeros["revived"] and zeros["new"]:
        yield say("pair.zeros_overlap", share=zeros["iou"])


def _extremes(study: StudyFigures) -> Iterator[str]:
    """Yield the layers with the largest shares of revived and of new zeros, and of change."""
    matches = study.facts.table("matches")
    rows = matches[matches["prunable"] & (matches["compared"] > 0)]
    rows = rows.assign(zeros=rows["kept"] + rows["revived"])
    rows = rows.assign(nonzero=rows["compared"] - rows["zeros"])
    shares = {
        "pair.largest_revived_share": rows["revived"] / rows["zeros"].where(rows["zeros"] > 0),
        "pair.largest_new_share": rows["new"] / rows["nonzero"].where(rows["nonzero"] > 0),
        "pair.largest_change": rows["relative_change"],
    }
    for key, column in shares.items():
        share = column.astype(float).round(3).dropna()
        if share.nunique() > 1:
            modules = rows.loc[share.index[share == share.max()], "module_name"].tolist()
            yield say(key, modules=modules, share=float(column.max()))


def changed_values(study: StudyFigures) -> Iterator[str]:
    """Yield changes of the weights that are nonzero in both checkpoints."""
    weights = records(study.facts.table("survival"))[0]
    if weights["changed"] is None:  # a history counts zeros alone
        return
    total, modules, untouched = (weights[key] for key in ("surviving", "modules", "untouched"))
    if weights["changed"]:
        share = share_of(weights["changed"], total, say("pair.surviving_weights"))
        yield say("pair.weights_changed", share=share, moved=weights["relative_change"])
    elif total and not is_identical(study):
        yield say("pair.weights_unchanged")
    if 0 < untouched < modules:
        yield say("pair.layers_untouched", untouched=untouched, modules=modules)


def _patterns(study: StudyFigures) -> Iterator[str]:
    """Yield the N:M patterns of the base that layers kept."""
    for pattern, kept, modules in kept_patterns(study):
        yield say("pair.n_m_pattern_kept", pattern=pattern, kept=kept, modules=modules)


def kept_patterns(study: StudyFigures) -> Iterator[tuple[str, int, int]]:
    """Yield the N:M patterns of the base, the layers that kept each, and those that had it."""
    matches = study.facts.table("matches")
    rows = matches[matches["n_m_before"].notna() & (matches["compared"] > 0)]
    for pattern, part in rows.groupby("n_m_before", sort=False):
        yield str(pattern), int((part["n_m_after"] == pattern).sum()), len(part)


def _added(study: StudyFigures) -> Iterator[str]:
    """Yield moved units and added modules."""
    yield from note_findings(study.notes, ["note.moved_units"])
    matches = study.facts.table("matches")
    names = matches.loc[matches["alignment"] == "added", "module_name"].tolist()
    if names:
        yield say("pair.added_modules", names=names, **models_of(study))


def _against_base(study: StudyFigures) -> Iterator[str]:
    facts, gone = study.facts, study.facts.base_shares["prunable"]
    fewer = figure_of(study, "prunable_weights")["removed"] > 0
    if gone is not None and fewer and facts.total(facts.sides[1], "sparsity_prunable"):
        yield say("pair.sparsity_against_base", gone=gone)


def _doubts(study: StudyFigures) -> Iterator[str]:
    """Yield modules that may not correspond to each other, and heads that may be tied."""
    yield from note_findings(study.notes, {"note.other_base"})
    matches = study.facts.table("matches")
    rows = matches[matches["prunable"] & (matches["compared"] >= ENOUGH)]
    surviving = rows["compared"] - rows["kept"] - rows["revived"] - rows["new"]
    other = (rows["correlation"] < UNRELATED) & (rows["changed"] > surviving / 2)
    if names := rows.loc[other, "module_name"].tolist():
        yield say("pair.unrelated_values", names=names)
    tied = map(head_is_embedding, map(study.facts.layers, study.facts.sides))
    heads = dict(zip(tied, study.variants["model"].iloc[:2], strict=True))
    if set(heads) == {True, False}:
        yield say("pair.head_tied_and_untied", tied=heads[True], other=heads[False])
    elif set(heads) == {True, None}:
        yield say("pair.head_tied_and_unknown", tied=heads[True], other=heads[None])


def is_identical(study: StudyFigures) -> bool:
    """Return True if no weight was pruned, changed or removed."""
    layers = study.facts.table("matches")
    rows = layers[(layers["weight_before"] > 0) | (layers["weight_after"] > 0)]
    changes = study.facts.table("changes")
    sizes = changes.loc[changes["group"].isna(), ["before", "after"]].dropna()
    return (
        study.facts.table("removed").empty
        and bool(rows["untouched"].fillna(False).all())
        and set(rows["alignment"]) <= _IN_PLACE
        and bool((sizes["before"] == sizes["after"]).all())
    )


def _zeros(study: StudyFigures) -> Iterator[str]:
    """Yield the fate of the base's zeros, or the new zeros of a dense base."""
    total = figure_of(study, "prunable_weights")["before"]
    row = records(study.facts.table("survival"))[0]
    if not total:
        yield say("pair.verdict_nothing_prunable", before=models_of(study)["before"])
    elif row["zeros_before"]:
        denominator, zeros = _prunable_zeros(study), row["zeros_before"]
        share = share_of(row["revived"], zeros, denominator)
        key = "pair.verdict_zeros_revived" if row["revived"] else "pair.verdict_zeros_stayed"
        yield say(key, share=share, zeros=zeros, which=denominator)
    elif row["new"]:
        share = share_of(row["new"], total, say("pair.prunable_weights"))
        yield say("pair.verdict_zeros_new", share=share)


def _prunable_zeros(study: StudyFigures) -> str:
    """Return the name of the zeros whose fate is known."""
    matches = study.facts.table("matches")
    rows = matches[matches["prunable"]]
    if rows["zeros_before"].sum() > (rows["kept"] + rows["revived"]).sum():
        return say("pair.verdict_zeros_compared")
    # Zeros of packed weights may come from rounding.
    is_own = is_pruned(study.facts.layers(study.facts.sides[0]))
    return say("pair.verdict_zeros_pruned" if is_own else "pair.verdict_zeros_of_base")


def _lost_parts(study: StudyFigures) -> Iterator[str]:
    parts = [*removed_parts(study)]
    weights, parameters = (figure_of(study, key) for key in ("prunable_weights", "parameters"))
    if _taken(study) and not weights["after"]:
        yield say("pair.verdict_all_removed", total=weights["before"])
    elif parts and parameters["removed"] > 0:
        yield say("pair.verdict_parts_removed", parts=parts, share=parameters["share"])
    elif parts:
        yield say("pair.verdict_parts_replaced", parts=parts)


def _more_zeros(study: StudyFigures) -> Iterator[str]:
    row = records(study.facts.table("survival"))[0]
    if row["zeros_before"] and row["new"]:
        share = ratio(row["new"], row["compared"] - row["zeros_before"])
        yield say("pair.verdict_zeros_added", new=row["new"], share=share)


def _size(study: StudyFigures) -> Iterator[str]:
    """Yield a change in bytes that removed parameters do not explain."""
    figures = (study.facts.size_figure, "parameters")
    stored, parameters = (figure_of(study, key)["share"] for key in figures)
    if stored is None or abs(stored) < _STATED or abs(stored - (parameters or 0)) < _STATED:
        return
    yield say(
        "pair.verdict_size_smaller" if stored > 0 else "pair.verdict_size_larger", share=abs(stored)
    )


def _survivors(study: StudyFigures) -> Iterator[str]:
    row, layers = records(study.facts.table("survival"))[0], study.facts.table("matches")
    rows = layers[~layers["prunable"] & (layers["compared"] > 0)]
    # A router may lack the rows of removed experts; its other rows count.
    is_whole = rows["weight_before"].eq(rows["weight_after"])
    is_changed = rows[["changed", "revived", "new"]].any(axis=1)
    others = rows[is_changed | (is_whole & ~rows["untouched"])]
    if len(others) and not row["changed"]:
        yield say("pair.verdict_others_changed", modules=len(others))
    else:
        yield from changed_values(study)


def both(study: StudyFigures) -> str:
    """Return the names of the two models, the base first."""
    before, after = map(short_name, study.variants["model"].iloc[:2])
    return f"{before} → {after}"


def strip_names(rows: Sequence[StripRow]) -> list[str]:
    """Return a distinct name for each row of a strip: its block, or else its module."""
    blocks = [row.block for row in rows]
    if None not in blocks and len(set(blocks)) == len(blocks):
        return [say("name.numbered_block", block=str(block)) for block in blocks]
    return distinct_names([row.module or "–" for row in rows], 40)


def block_names(shares: BlockShares) -> list[str]:
    """Return the name of each row: the number of its block, its group, or a dash."""
    return [
        str(block) if known(block) else group_name(group) if known(group) else UNKNOWN
        for block, group in shares.rows[["block", "group"]].itertuples(index=False, name=None)
    ]


def blocks_title(shares: BlockShares) -> str:
    """Return the finding about the blocks with the largest share."""
    rows = shares.rows.assign(name=block_names(shares))
    names = [
        say("name.numbered_block", block=row["name"])
        if known(row["block"])
        else say("pair.layers_outside_blocks")
        if row["name"] == UNKNOWN
        else row["name"]
        for row in rows[rows["share"].round(6) == round(rows["share"].max(), 6)].to_dict("records")
    ]
    return say(f"pair.blocks_title.{shares.figure}", where=some(names), share=rows["share"].max())


def blocks_axis(shares: BlockShares) -> str:
    """Return the definition of the shares."""
    return say(f"pair.blocks_axis.{shares.figure}")
