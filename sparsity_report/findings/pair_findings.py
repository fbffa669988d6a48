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
from sparsity_report.weights.adapters.adapter_files import OTHER_BASE
from sparsity_report.words.display_names import short_name
from sparsity_report.words.number_format import known
from sparsity_report.words.sentences import message, say, say_noted

# Of kinds, in the order of what is largest.
_GONE = {
    "block": message("{gone:,} of {among:plural block|blocks}"),
    "attention": message("the attention of {gone:plural block|blocks}"),
    "mlp": message("the MLP of {gone:plural block|blocks}"),
    "expert": message("{gone:names} of {among:plural expert|experts} in {where}"),
    "head": message("{gone:names} of {among:plural head|heads} in {where}"),
    "kv_head": message("{gone:names} of {among:plural key-value head|key-value heads} in {where}"),
    "channel": message("{gone:names} of {among:plural channel|channels} in {where}"),
    "vocabulary": message("{gone:,} of {among:plural token|tokens} of the vocabulary"),
    "width": message("{gone:,} of {among:plural channel|channels} of the width"),
}
_FIGURES = {
    "parameters": message("parameters"),
    "active_parameters": message("active parameters per token"),
    "flops_per_token": message("FLOPs per token"),
    "stored_bytes": message("stored bytes"),
    "kv_cache_bytes_per_token": message("KV-cache bytes per token"),
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
            yield say("Gone besides them: {what:names}.", what=what)
        return
    dense = message(
        "{share:percent} of the {total:,} prunable weights of {before} are gone from {after}: "
        "{what:names}; what stayed is dense."
    )
    sparse = message(
        "{share:percent} of the {total:,} prunable weights of {before} are gone from {after}: "
        "{what:names}; of what stayed {zeros:percent} are zero."
    )
    yield say(
        sparse if zeros else dense,
        share=ratio(pair.taken, total),
        total=total, before=before, after=after, what=what, zeros=zeros,
    )  # fmt: skip
    unsure = pair.removed.loc[pair.removed["certainty"] > 0, "certainty"].min()
    if unsure < 1:
        yield say(
            "What stayed was recognised by its values, the least sure of it with a certainty of "
            "{certainty:percent}.",
            certainty=float(unsure),
        )


def _none_taken(pair: Pair, total: int, before: str, after: str) -> str:
    if (pair.layers["alignment"] == "rotated").any():
        return say(
            "{after} has as many prunable weights as {before}, {total:,}.",
            total=total, before=before, after=after,
        )  # fmt: skip
    whole = records(pair.survival)[0]
    if whole["zeros_before"] or not whole["new"]:
        return say(
            "Nothing was taken away: all {total:,} prunable weights of {before} stand in {after}.",
            total=total, before=before, after=after,
        )  # fmt: skip
    return say(
        "{new:,} of the {total:,} prunable weights of {before}, {share:percent}, became zero in "
        "{after}; none is gone.",
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
        every = message("every block")
        some = message("{blocks:plural block|blocks}")
        yield say(
            template,
            gone=shown,
            among=sorted({int(n) for n in among})[-1],
            where=say(every) if blocks == left > 0 else say(some, blocks=blocks),
        )
    if layers := pair.removed.loc[pair.removed["kind"] == "layer", "module"].tolist():
        yield say("{names:some}", names=layers)


def _orders(pair: Pair) -> Iterator[str]:
    """Say what is all there in another order, or in other axes."""
    if (pair.layers["alignment"] == "rotated").any():
        before, after = map(short_name, pair.models["model"])
        yield say(
            "Hardly a channel of the width of {after} is one of {before}, and yet its tokens are "
            "as much alike as they were: the width looks rotated, as SliceGPT, QuaRot and "
            "SpinQuant do. Nothing tells which weight is which, so none in that width is compared.",
            before=before, after=after,
        )  # fmt: skip
    for note in pair.notes:
        if OTHER_ORDER in note:
            yield say_noted(note)


def _zeros(pair: Pair) -> Iterator[str]:
    whole = records(pair.survival)[0]
    if whole["zeros_before"]:
        yield say(
            "Of the {zeros:,} zeros that {before} has among them, {share:percent} are zero still; "
            "revived: {revived:,}, new: {new:,}.",
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
            "The two agree on {share:percent} of the zeros that either has, least in {module} "
            "({least:percent}).",
            share=whole["iou"],
            module=short_name(least["module_name"]),
            least=least["iou"],
        )


def _changed(pair: Pair) -> Iterator[str]:
    whole = records(pair.survival)[0]
    if whole["changed"]:
        yield say(
            "Of the {total:,} weights that are nonzero in both, {share:percent} changed, by "
            "{moved:percent} of their norm.",
            total=whole["surviving"],
            share=whole["changed"] / whole["surviving"],
            moved=whole["relative_change"],
        )
    elif whole["surviving"]:
        yield say("Every weight that is nonzero in both is what it was.")
    if 0 < whole["untouched"] < whole["modules"]:
        yield say(
            "{untouched:,} of {modules:plural prunable layer|prunable layers} were not touched "
            "at all.",
            untouched=whole["untouched"],
            modules=whole["modules"],
        )


def _patterns(pair: Pair) -> Iterator[str]:
    """Say whether N:M patterns are kept or lost."""
    rows = pair.layers[pair.layers["n_m_before"].notna() & (pair.layers["compared"] > 0)]
    for pattern, part in rows.groupby("n_m_before", sort=False):
        kept = int((part["n_m_after"] == pattern).sum())
        yield say(
            "{pattern} was kept by {kept:,} of {modules:plural layer|layers} that had it.",
            pattern=pattern,
            kept=kept,
            modules=len(part),
        )


def _figures(pair: Pair) -> Iterator[str]:
    parts = []
    for figure, template in _FIGURES.items():
        row = _figure(pair, figure)
        if known(row["share"]) and row["removed"]:
            parts.append(
                say(
                    "{figure} {before:,} → {after:,}",
                    figure=say(template), before=row["before"], after=row["after"],
                )
            )  # fmt: skip
    if parts:
        yield say("From the base to what is left: {parts:names}.", parts=parts)


def _sparsities(pair: Pair) -> Iterator[str]:
    row = records(pair.sparsities)[0]
    if known(row["gone_of_base"]) and row["total_after"] < row["total_before"]:
        yield say(
            "Of the prunable weights {itself:percent} are zero in what is left; against the base, "
            "{gone:percent} are zero or gone.",
            itself=row["sparsity_itself"],
            gone=row["gone_of_base"],
        )


def _added(pair: Pair) -> Iterator[str]:
    """Say what only the model after has."""
    rows = pair.layers[pair.layers["alignment"] == "added"]
    if len(rows):
        before, after = map(short_name, pair.models["model"])
        yield say(
            "{after} has what {before} has not: {names:some}.",
            before=before, after=after, names=rows["module_name"].tolist(),
        )  # fmt: skip


def _doubts(pair: Pair) -> Iterator[str]:
    """Say what may be another model, or layer, of that name, and which head is the embedding."""
    yield from (say_noted(note) for note in pair.notes if note.startswith(OTHER_BASE))
    rows = pair.layers[pair.layers["prunable"] & (pair.layers["compared"] >= ENOUGH)]
    surviving = rows["compared"] - rows["kept"] - rows["revived"] - rows["new"]
    other = (rows["correlation"] < UNRELATED) & (rows["changed"] > surviving / 2)
    strange = rows.loc[other, "module_name"].tolist()
    if strange:
        yield say(
            "Nothing in the values of {names:some} says that it is what it was in the base: the "
            "two have a name in common, and may have another meaning.",
            names=strange,
        )
    names = [short_name(model) for model in pair.models["model"]]
    heads = dict(zip(map(head_is_embedding, (pair.before, pair.after)), names, strict=True))
    if set(heads) == {True, False}:
        yield say(
            "The output head is the embedding in {tied}, and has values of its own in {other}.",
            tied=heads[True],
            other=heads[False],
        )
    elif set(heads) == {True, None}:
        yield say(
            "The output head is the embedding in {tied}; whether {other} has one its file does not "
            "say, so that the FLOPs of the two are not compared.",
            tied=heads[True],
            other=heads[None],
        )


def _figure(pair: Pair, figure: str) -> dict[str, Any]:
    frame: pd.DataFrame = pair.totals
    return records(frame[frame["figure"] == figure])[0]
