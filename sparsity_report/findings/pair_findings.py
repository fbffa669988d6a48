"""What was taken away between two checkpoints, and what became of the zeros, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from sparsity_report.pairing.permutations import OTHER_ORDER
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import ENOUGH, UNRELATED, Pair
from sparsity_report.study.pairs.pair_frames import head_is_embedding
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.weights.adapters.adapter_files import OTHER_BASE
from sparsity_report.words.number_format import known
from sparsity_report.words.sentences import say, say_noted

# Of kinds, in the order of what is largest.
_GONE = {
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
_FIGURES = {
    "parameters": "quantity.parameters",
    "active_parameters": "quantity.active_parameters_per_token",
    "flops_per_token": "metric.flops_per_token",
    "stored_bytes": "quantity.stored_bytes",
    "kv_cache_bytes_per_token": "quantity.kv_cache_bytes_per_token",
}


def pair_sentences(pair: Pair) -> list[str]:
    r"""Say what is worth knowing of a pair, most important first.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pair = sr.compare_checkpoints(weights, sr.n_m(weights, 2, 4))
    >>> print(pair.sentences()[0].replace("\u202f", " ").partition(" in ")[0])
    393 216 of the 786 432 prunable weights of demo, 50.0 %, became zero
    """
    said = [*_taken(pair), *_orders(pair), *_zeros(pair), *_changed(pair), *_patterns(pair)]
    return [*said, *_added(pair), *_figures(pair), *_sparsities(pair), *_doubts(pair)]


def _taken(pair: Pair) -> Iterator[str]:
    before, after = map(short_name, pair.models["model"])
    total = _figure(pair, "prunable_weights")["before"]
    zeros = records(pair.sparsities)[0]["sparsity_itself"]
    what = [*_things(pair)]
    if not pair.taken:
        yield _none_taken(pair, total, before, after)
        if what:
            yield say("pair.removed_besides_prunable", what=what)
        return
    dense = "pair.removed_rest_dense"
    sparse = "pair.removed_rest_sparse"
    yield say(
        sparse if zeros else dense,
        share=ratio(pair.taken, total),
        total=total, before=before, after=after, what=what, zeros=zeros,
    )  # fmt: skip
    unsure = pair.removed.loc[pair.removed["certainty"] > 0, "certainty"].min()
    if unsure < 1:
        yield say("pair.matched_by_values", certainty=float(unsure))


def _none_taken(pair: Pair, total: int, before: str, after: str) -> str:
    if (pair.layers["alignment"] == "rotated").any():
        return say(
            "pair.same_weight_count",
            total=total, before=before, after=after,
        )  # fmt: skip
    whole = records(pair.survival)[0]
    if whole["zeros_before"] or not whole["new"]:
        return say(
            "pair.nothing_removed",
            total=total, before=before, after=after,
        )  # fmt: skip
    return say(
        "pair.new_zeros_only",
        new=whole["new"], share=ratio(whole["new"], total),
        total=total, before=before, after=after,
    )  # fmt: skip


def _things(pair: Pair) -> Iterator[str]:
    """Say what kinds of things are gone, how many of how many, and where."""
    for kind, template in _GONE.items():
        rows = pair.removed[pair.removed["kind"] == kind]
        if rows.empty:
            continue
        if kind in ("attention", "mlp"):
            yield say(template, gone=len(rows))
            continue
        if kind in ("block", "vocabulary", "width"):
            yield say(template, gone=len(rows), among=int(rows["among"].iloc[0]))
            continue
        counts = rows.groupby("module", sort=False).size()
        among = rows.groupby("module", sort=False)["among"].first()
        gone = sorted({int(n) for n in counts})
        shown = [f"{gone[0]:,}"] if len(gone) == 1 else [f"{gone[0]:,}–{gone[-1]:,}"]
        blocks = rows["block"].nunique()
        left = pair.layers.loc[pair.layers["after_name"].notna(), "block"].nunique()
        every = "pair.every_block"
        some = "pair.block_count"
        yield say(
            template,
            gone=shown,
            among=sorted({int(n) for n in among})[-1],
            where=say(every) if blocks == left > 0 else say(some, blocks=blocks),
        )
    if layers := pair.removed.loc[pair.removed["kind"] == "layer", "module"].tolist():
        yield say("format.some_names", names=layers)


def _orders(pair: Pair) -> Iterator[str]:
    """Say what is all there in another order, or in other axes."""
    if (pair.layers["alignment"] == "rotated").any():
        before, after = map(short_name, pair.models["model"])
        yield say(
            "pair.rotated_width",
            before=before, after=after,
        )  # fmt: skip
    for note in pair.notes:
        if OTHER_ORDER in str(note):
            yield say_noted(note)


def _zeros(pair: Pair) -> Iterator[str]:
    whole = records(pair.survival)[0]
    if whole["zeros_before"]:
        yield say(
            "pair.zeros_kept",
            before=short_name(pair.models["model"].iloc[0]),
            zeros=whole["zeros_before"],
            share=whole["kept_share"],
            revived=whole["revived"],
            new=whole["new"],
        )
    if whole["zeros_before"] and whole["zeros_after"]:
        rows = pair.layers[pair.layers["prunable"] & pair.layers["iou"].notna()]
        least = min(records(rows), key=lambda row: row["iou"])
        yield say(
            "pair.zeros_overlap",
            share=whole["iou"],
            module=short_name(least["module_name"]),
            least=least["iou"],
        )


def _changed(pair: Pair) -> Iterator[str]:
    whole = records(pair.survival)[0]
    if whole["changed"]:
        yield say(
            "pair.weights_changed",
            total=whole["surviving"],
            share=whole["changed"] / whole["surviving"],
            moved=whole["relative_change"],
        )
    elif whole["surviving"]:
        yield say("pair.weights_unchanged")
    if 0 < whole["untouched"] < whole["modules"]:
        yield say("pair.layers_untouched", untouched=whole["untouched"], modules=whole["modules"])


def _patterns(pair: Pair) -> Iterator[str]:
    """Say whether N:M patterns are kept or lost."""
    rows = pair.layers[pair.layers["n_m_before"].notna() & (pair.layers["compared"] > 0)]
    for pattern, part in rows.groupby("n_m_before", sort=False):
        kept = int((part["n_m_after"] == pattern).sum())
        yield say("pair.n_m_pattern_kept", pattern=pattern, kept=kept, modules=len(part))


def _figures(pair: Pair) -> Iterator[str]:
    parts = []
    for figure, template in _FIGURES.items():
        row = _figure(pair, figure)
        if known(row["share"]) and row["removed"]:
            parts.append(
                say(
                    "pair.figure_change",
                    figure=say(template), before=row["before"], after=row["after"],
                )
            )  # fmt: skip
    if parts:
        yield say("pair.figure_changes", parts=parts)


def _sparsities(pair: Pair) -> Iterator[str]:
    row = records(pair.sparsities)[0]
    if known(row["gone_of_base"]) and row["total_after"] < row["total_before"]:
        yield say(
            "pair.sparsity_against_base", itself=row["sparsity_itself"], gone=row["gone_of_base"]
        )


def _added(pair: Pair) -> Iterator[str]:
    """Say what only the model after has."""
    rows = pair.layers[pair.layers["alignment"] == "added"]
    if len(rows):
        before, after = map(short_name, pair.models["model"])
        yield say(
            "pair.added_modules",
            before=before, after=after, names=rows["module_name"].tolist(),
        )  # fmt: skip


def _doubts(pair: Pair) -> Iterator[str]:
    """Say what may be another model, or layer, of that name, and which head is the embedding."""
    yield from (say_noted(note) for note in pair.notes if note.key == OTHER_BASE)
    rows = pair.layers[pair.layers["prunable"] & (pair.layers["compared"] >= ENOUGH)]
    surviving = rows["compared"] - rows["kept"] - rows["revived"] - rows["new"]
    other = (rows["correlation"] < UNRELATED) & (rows["changed"] > surviving / 2)
    strange = rows.loc[other, "module_name"].tolist()
    if strange:
        yield say("pair.unrelated_values", names=strange)
    names = [short_name(model) for model in pair.models["model"]]
    heads = dict(zip(map(head_is_embedding, (pair.before, pair.after)), names, strict=True))
    if set(heads) == {True, False}:
        yield say("pair.head_tied_and_untied", tied=heads[True], other=heads[False])
    elif set(heads) == {True, None}:
        yield say("pair.head_tied_and_unknown", tied=heads[True], other=heads[None])


def _figure(pair: Pair, figure: str) -> dict[str, Any]:
    frame: pd.DataFrame = pair.totals
    return records(frame[frame["figure"] == figure])[0]
