"""Findings about a pair of checkpoints: removed parts, permutations, and the fate of zeros."""

from collections.abc import Iterator
from typing import Any

from sparsity_report.pairing.alignment import ORDER_NOTES
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.layers import records
from sparsity_report.study.notes import note_findings
from sparsity_report.study.pairs.pair import ENOUGH, UNRELATED, Pair
from sparsity_report.study.pairs.pair_frames import head_is_embedding

# Keys by kind of removed part: counted in the model, and counted in each block.
_REMOVED = {
    "block": "pair.gone_blocks",
    "attention": "pair.gone_block_attention",
    "mlp": "pair.gone_block_mlp",
    "expert": "pair.gone_experts",
    "head": "pair.gone_heads",
    "kv_head": "pair.gone_kv_heads",
    "channel": "pair.gone_channels",
    "vocabulary": "pair.gone_vocabulary_tokens",
    "width": "pair.gone_width_channels",
}
_IN_BLOCKS = {"expert", "head", "kv_head", "channel"}
_FIGURES = {
    "parameters": "quantity.parameters",
    "active_parameters": "quantity.active_parameters_per_token",
    "flops_per_token": "metric.flops_per_token",
    "stored_bytes": "quantity.stored_bytes",
    "kv_cache_bytes_per_token": "quantity.kv_cache_bytes_per_token",
}


def pair_findings(pair: Pair) -> list[Phrase]:
    r"""Return the findings about a pair, most important first.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pair = sr.compare_checkpoints(weights, sr.n_m(weights, 2, 4))
    >>> print(str(pair_findings(pair)[0]).replace("\u202f", " ").partition(" in ")[0])
    393 216 of the 786 432 prunable weights of demo, 50.0 %, became zero
    """
    parts = (_removed, _permutations, _zeros, _changes, _added, _figures, _doubts)
    return [finding for part in parts for finding in part(pair)]


def _models(pair: Pair) -> dict[str, str]:
    return dict(zip(("before", "after"), pair.models["model"], strict=True))


def _removed(pair: Pair) -> Iterator[Phrase]:
    total = _figure(pair, "prunable_weights")["before"]
    parts = [*_removed_parts(pair)]
    if not pair.taken:
        yield _nothing_removed(pair, total)
        if parts:
            yield phrase("pair.removed_besides_prunable", parts=parts)
        return
    zeros, share = records(pair.sparsities)[0]["sparsity_itself"], ratio(pair.taken, total)
    key = "pair.removed_rest_sparse" if zeros else "pair.removed_rest_dense"
    yield phrase(key, share=share, total=total, parts=parts, zeros=zeros, **_models(pair))
    certainty = pair.removed.loc[pair.removed["certainty"] > 0, "certainty"].min()
    if certainty < 1:
        yield phrase("pair.matched_by_values", certainty=float(certainty))


def _nothing_removed(pair: Pair, total: int) -> Phrase:
    if (pair.layers["alignment"] == "rotated").any():
        return phrase("pair.same_weight_count", total=total, **_models(pair))
    zeros = records(pair.survival)[0]
    new = None if zeros["zeros_before"] else zeros["new"]
    key = "pair.new_zeros_only" if new else "pair.nothing_removed"
    return phrase(key, new=new, share=ratio(new or 0, total), total=total, **_models(pair))


def _removed_parts(pair: Pair) -> Iterator[Phrase]:
    """Yield the number of removed parts of each kind, and the blocks they were in."""
    blocks_left = pair.layers.loc[pair.layers["after_name"].notna(), "block"].nunique()
    for kind, key in _REMOVED.items():
        rows = pair.removed[pair.removed["kind"] == kind]
        if rows.empty:
            continue
        if kind not in _IN_BLOCKS:
            yield phrase(key, gone=len(rows), among=int(rows["among"].iloc[0]))
            continue
        modules = rows.groupby("module", sort=False)
        blocks = rows["block"].nunique()
        every = "pair.every_block" if blocks == blocks_left > 0 else "pair.block_count"
        where, among = phrase(every, blocks=blocks), int(modules["among"].first().max())
        yield phrase(key, gone=modules.size().tolist(), among=among, where=where)
    if layers := pair.removed.loc[pair.removed["kind"] == "layer", "module"].tolist():
        yield phrase("format.some_names", names=layers)


def _permutations(pair: Pair) -> Iterator[Phrase]:
    if (pair.layers["alignment"] == "rotated").any():
        yield phrase("pair.rotated_width", **_models(pair))
    yield from note_findings(pair.notes, ORDER_NOTES.values())


def _zeros(pair: Pair) -> Iterator[Phrase]:
    zeros = records(pair.survival)[0]
    if not zeros["zeros_before"]:
        return
    before, share = pair.models["model"].iloc[0], zeros["kept_share"]
    fates = {"zeros": zeros["zeros_before"], "revived": zeros["revived"], "new": zeros["new"]}
    yield phrase("pair.zeros_kept", before=before, share=share, **fates)
    if zeros["zeros_after"]:
        rows = pair.layers[pair.layers["prunable"]]
        module, least = rows.nsmallest(1, "iou")[["module_name", "iou"]].iloc[0]
        yield phrase("pair.zeros_overlap", share=zeros["iou"], module=module, least=least)


def _changes(pair: Pair) -> Iterator[Phrase]:
    """Yield changes of the weights that both checkpoints have, and N:M patterns kept."""
    weights = records(pair.survival)[0]
    total, modules, untouched = (weights[key] for key in ("surviving", "modules", "untouched"))
    if weights["changed"]:
        share, moved = weights["changed"] / total, weights["relative_change"]
        yield phrase("pair.weights_changed", total=total, share=share, moved=moved)
    elif total:
        yield phrase("pair.weights_unchanged")
    if 0 < untouched < modules:
        yield phrase("pair.layers_untouched", untouched=untouched, modules=modules)
    rows = pair.layers[pair.layers["n_m_before"].notna() & (pair.layers["compared"] > 0)]
    for pattern, part in rows.groupby("n_m_before", sort=False):
        kept = int((part["n_m_after"] == pattern).sum())
        yield phrase("pair.n_m_pattern_kept", pattern=pattern, kept=kept, modules=len(part))


def _added(pair: Pair) -> Iterator[Phrase]:
    names = pair.layers.loc[pair.layers["alignment"] == "added", "module_name"].tolist()
    if names:
        yield phrase("pair.added_modules", names=names, **_models(pair))


def _figures(pair: Pair) -> Iterator[Phrase]:
    changes = [
        phrase("pair.figure_change", figure=phrase(key), before=row["before"], after=row["after"])
        for figure, key in _FIGURES.items()
        if (row := _figure(pair, figure))["share"] is not None and row["removed"]
    ]
    if changes:
        yield phrase("pair.figure_changes", changes=changes)
    row = records(pair.sparsities)[0]
    gone = row["gone_of_base"]
    if gone is not None and row["total_after"] < row["total_before"]:
        yield phrase("pair.sparsity_against_base", itself=row["sparsity_itself"], gone=gone)


def _doubts(pair: Pair) -> Iterator[Phrase]:
    """Yield modules that may not correspond to each other, and heads that may be tied."""
    yield from note_findings(pair.notes, {"note.other_base"})
    rows = pair.layers[pair.layers["prunable"] & (pair.layers["compared"] >= ENOUGH)]
    surviving = rows["compared"] - rows["kept"] - rows["revived"] - rows["new"]
    other = (rows["correlation"] < UNRELATED) & (rows["changed"] > surviving / 2)
    if names := rows.loc[other, "module_name"].tolist():
        yield phrase("pair.unrelated_values", names=names)
    tied = map(head_is_embedding, (pair.before, pair.after))
    heads = dict(zip(tied, pair.models["model"], strict=True))
    if set(heads) == {True, False}:
        yield phrase("pair.head_tied_and_untied", tied=heads[True], other=heads[False])
    elif set(heads) == {True, None}:
        yield phrase("pair.head_tied_and_unknown", tied=heads[True], other=heads[None])


def _figure(pair: Pair, figure: str) -> dict[str, Any]:
    return records(pair.totals[pair.totals["figure"] == figure])[0]
