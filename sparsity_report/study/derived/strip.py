"""The four figures at the head of a report, each from dense to pruned."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.study.derived.facts import Facts
from sparsity_report.study.derived.protocol_scores import by_protocol
from sparsity_report.study.derived.zero_shot import seven_tasks
from sparsity_report.study.layers import records
from sparsity_report.words.sentences import says

# Reasons for a speed that is not stated, the clearest first.
_UNSOUND = ("noise", "crowded", "ticks", "unsettled", "few", "unknown")
# Reasons for no perplexity.
_NO_SCORE = ("no_causal_head", "loss_not_finite")


class Tile(NamedTuple):
    """One figure of the whole model, before and after pruning.

    Attributes
    ----------
    key : str
        ``perplexity``, ``accuracy`` or ``quality`` (not measured); ``size``; ``useful_flops``;
        ``speed``; of a study without a pruning also ``parameters`` and ``prunable``, or
        ``active`` if variants lack experts; of two checkpoints ``zeros``, ``performed_flops``,
        and ``revived`` if there were zeros; over training ``zeros``, ``revived``, ``new``, and
        ``merge_fills`` or ``steps``.
    before : float or None
        Of the baseline; None if unknown, and in a study without a pruning.
    after : tuple of float
        The lowest and the highest value of the prunings; empty if none is known.
    more : mapping
        Values for the note: ``text``, ``text_fingerprint``, ``window`` and ``vocabulary``, and the
        ``model`` if there are several; or the ``reason`` for which there is no score; ``layout``;
        ``performed``, the FLOPs of dense kernels; ``tokens``, ``low`` and ``high``, and ``reason``,
        the verdict on the speed; of two checkpoints ``note``, the key of the note.
    """

    key: str
    before: float | None
    after: tuple[float, ...]
    more: Mapping[str, Any] = {}


def strip(facts: Facts) -> tuple[Tile, ...]:
    """Return quality, size, FLOPs and speed of the prunings of the first pruned model.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> quality, size, _, speed = strip(sr.compare(sr.dense(sr.load()), sr.csr(pruning)).facts)
    >>> quality.key, size.more["layout"], speed.more["reason"]
    ('quality', 'bitmask', 'unmeasured')
    """
    if facts.study.survival is not None:
        return _matched(facts, records(facts.study.survival)[0])
    variants = facts.contenders
    if not variants:
        return _opened(facts, tuple(facts.lacking))
    return (
        _quality(facts, variants),
        _size(facts, variants),
        _flops(facts, variants),
        _speed(facts),
    )


def _opened(facts: Facts, fewer: tuple[str, ...]) -> tuple[Tile, ...]:
    """Return quality and sizes of a model, before and after the removal of experts if any lack."""
    second = {"active": "active_total"} if fewer else {"prunable": "prunable_total"}
    variants = fewer or (facts.headline,)
    sums = {"parameters": "total", **second}
    figures: dict[str, Callable[[str], float | None]]
    figures = {key: partial(facts.total, column=column) for key, column in sums.items()}
    figures["size"] = facts.size_as_stored
    more = {"layout": "file"} if all(map(facts.packings, variants)) else {}
    tiles = [
        Tile(key, figure(facts.baseline) if fewer else None, _ends(map(figure, variants)), more)
        for key, figure in figures.items()
    ]
    return (_quality(facts, variants), *tiles)


def _matched(facts: Facts, fate: Mapping[str, Any]) -> tuple[Tile, ...]:
    """Return zeros, revived zeros or else FLOPs, parameters and bytes of two checkpoints."""
    figures = {"parameters": "parameters", "size": facts.size_figure}
    before, after = (facts.total(side, "sparsity_prunable") for side in facts.sides)
    tiles = [Tile("zeros", before, _ends([after]), {"note": "strip.zeros_note"})]
    history = facts.study.history
    if zeros := fate["zeros_before"]:
        note = "strip.revived_note" if history is None else "strip.kept_note"
        more = {"note": note, "revived": fate["revived"], "zeros": zeros}
        tiles.append(Tile("revived", None, _ends([fate["revived"] / zeros]), more))
    else:
        figures["performed_flops"] = "flops_per_token"
    if history is not None:
        new = Tile("new", None, (fate["new"],), {"note": "strip.new_note"})
        return (*tiles, new, _end(history))
    changes = facts.table("changes")
    sums = {row["figure"]: row for row in records(changes[changes["group"].isna()])}
    for key, figure in figures.items():
        before, after = sums[figure]["before"], sums[figure]["after"]
        more = {"note": "strip.of_unchanged_model" if before == after else "strip.of_model"}
        is_known = not (pd.isna(before) or pd.isna(after))
        after_ends = _ends([after]) if is_known else ()
        tiles.append(Tile(key, before if is_known else None, after_ends, more))
    return tuple(tiles)


def _end(history: pd.DataFrame) -> Tile:
    """Return the share of zeros that a merge fills, or else the steps."""
    steps = history["step"]
    tuned = history[(steps == steps.max()) & history["filled"].notna()]
    if zeros := tuned["zeros"].sum():
        share = tuned["filled"].sum() / zeros
        return Tile("merge_fills", None, (share,), {"note": "strip.merge_fills_note"})
    more = {"note": "strip.steps_note", "records": steps.nunique()}
    return Tile("steps", int(steps.min()), (int(steps.max()),), more)


def _ends(values: Iterable[float | None]) -> tuple[float, ...]:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else ()


def _quality(facts: Facts, variants: tuple[str, ...]) -> Tile:
    for rows in by_protocol(facts.study.quality):
        scores = rows.dropna(subset=["perplexity"]).set_index("variant")["perplexity"]
        if after := _ends(_scores(facts, scores, variants)):
            details = {key: rows[key].iloc[0] for key in ("text", "text_fingerprint", "window")}
            details["vocabulary"] = facts.vocabulary(variants[0])
            models = facts.study.variants.set_index("variant")
            is_one = models["fingerprint"].nunique() == 1 or variants[0] in facts.lacking
            details["model"] = None if is_one else models["model"][variants[0]]
            return Tile("perplexity", _before(facts, scores, variants), after, details)
    tasks = facts.study.tasks
    if tasks is not None and (means := seven_tasks(tasks)) is not None:
        mean = means[means["task"] == "mean"].set_index("variant")["value"].dropna()
        if after := _ends(_scores(facts, mean, variants)):
            return Tile("accuracy", _before(facts, mean, variants), after)
    notes, is_headless = facts.study.notes, facts.lacks_head(facts.original or facts.baseline)
    reasons = (f"strip.{k}" for k in _NO_SCORE if any(says(note, f"note.{k}") for note in notes))
    reason = "strip.no_causal_head" if is_headless else "strip.run_perplexity"
    return Tile("quality", None, (), {"reason": next(reasons, reason)})


def _scores(facts: Facts, scores: pd.Series, variants: tuple[str, ...]) -> Iterator[float]:
    """Yield the score of each pruning of which a variant was scored."""
    alike = (scores.reindex(facts.layouts_of(variant)).dropna() for variant in variants)
    yield from (known.iloc[0] for known in alike if len(known))


def _before(facts: Facts, scores: pd.Series, variants: tuple[str, ...]) -> float | None:
    """Return the score before pruning; None if the model was opened as it is."""
    original = facts.original
    return None if original in facts.layouts_of(variants[0]) else scores.get(original)


def _size(facts: Facts, variants: tuple[str, ...]) -> Tile:
    """Return the bytes in the smallest layout that is lossless for all prunings."""
    layout = facts.common_layout(variants)
    sizes = [facts.size(name, layout) for name in variants] if layout else []
    return Tile("size", facts.size_before(variants[0]), _ends(sizes), {"layout": layout})


def _flops(facts: Facts, variants: tuple[str, ...]) -> Tile:
    """Return the FLOPs of nonzeros, and those that dense kernels perform."""
    alike = (*facts.layouts_of(variants[0]), facts.original)
    dense = next((name for name in alike if name and facts.layouts[name] != "csr"), None)
    performed = None if dense is None else facts.total(dense, "flops_per_token")
    useful = (facts.total(name, "useful_flops_per_token") for name in variants)
    original = None if facts.original in alike[:-1] else facts.original
    before = None if original is None else facts.total(original, "useful_flops_per_token")
    return Tile("useful_flops", before, _ends(useful), {"performed": performed})


def _speed(facts: Facts) -> Tile:
    """Return the speed of the headline's whole forward pass at its smallest number of tokens."""
    rows = facts.whole_speeds(facts.headline).sort_values("tokens", kind="stable")
    for row in records(rows[rows["verdict"] == "stated"].head(1)):
        low, high = row["realised_low"], row["realised_high"]
        more = {"tokens": int(row["tokens"]), "low": low, "high": high, "reason": "stated"}
        return Tile("speed", 1.0, (row["realised_speedup"],) * 2, more)
    known = set(rows["verdict"])
    reason = next((each for each in _UNSOUND if each in known), "same" if known else "unmeasured")
    return Tile("speed", None, (), {"reason": reason})
