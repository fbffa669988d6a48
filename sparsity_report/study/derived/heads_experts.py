"""Sparsity of attention heads and experts, parts that are all zero, and use of experts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from sparsity_report.study.block_bootstrap import mean_over
from sparsity_report.study.layers import records
from sparsity_report.study.schema import TABLES, typed
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from sparsity_report.counting.kept_experts import KeptExperts
    from sparsity_report.study.frames import StudyFrames
    from sparsity_report.study.variants import Variant

#: Figures of an expert beside the others of its module, and families of their texts.
FIGURES = ("expert_use", "expert_saliency")
#: Notes on the experts that a list keeps with another calibration text.
OVERLAPS = ("note.expert_overlap", "note.expert_overlap_interval")


class Part(NamedTuple):
    """Heads of one projection, or experts.

    Attributes
    ----------
    key : {"heads", "experts"}
    projection : str
        Projection of the heads; empty for experts, whose matrices are summed.
    rows : pandas.DataFrame
        ``block``, ``part`` (number of the head or expert) and ``sparsity`` of its weights.
    """

    key: str
    projection: str
    rows: pd.DataFrame


class Inner(NamedTuple):
    """Zeros inside the matrices of one module.

    Attributes
    ----------
    heads, experts : tuple of float
        Sparsity of each, in order; empty if there are fewer than two.
    zero_rows, zero_columns : int
        Numbers of rows and columns of all matrices that are all zero.
    """

    heads: tuple[float, ...]
    experts: tuple[float, ...]
    zero_rows: int
    zero_columns: int


def inner(patterns: pd.DataFrame) -> dict[str, Inner]:
    """Return the zeros inside the matrices of each module of one variant.

    Heads are those of modules with one matrix.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`.
    """
    names, zeros = patterns["module_name"], dead(patterns)
    alone = patterns[~names.duplicated(keep=False)]
    heads = dict(zip(alone["module_name"], alone["head_sparsity"], strict=True))
    experts = _expert_sparsity(patterns, "module_name", "expert").groupby(level=0).agg(tuple)

    def several(shares: Sequence[float] | None) -> tuple[float, ...]:
        return tuple(shares) if shares is not None and len(shares) > 1 else ()

    return {
        str(name): Inner(
            several(heads.get(name)),
            several(experts.get(name)),
            int(zeros.rows.get(name, 0)),
            int(zeros.columns.get(name, 0)),
        )
        for name in names.unique()
    }


def parts(patterns: pd.DataFrame, projections: Mapping[str, str]) -> Iterator[Part]:
    """Yield the heads of each projection, then the experts, of a variant's numbered blocks.

    Kinds without zeros are left out, and projections of which a block has several matrices.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`.
    projections : mapping of str to str
        Short names of projections, by module.
    """
    known = patterns[patterns["block"].notna() & patterns["head_sparsity"].notna()]
    inside = known[known["module_name"].isin(projections)]
    lines = inside["module_name"].map(projections)
    for projection, rows in inside.groupby(lines, sort=False):
        heads = [
            {"block": int(row["block"]), "part": number, "sparsity": share}
            for row in records(rows)
            for number, share in enumerate(row["head_sparsity"])
        ]
        yield from _sparse_parts("heads", str(projection), pd.DataFrame(heads))
    experts = _expert_sparsity(patterns[patterns["block"].notna()], "block", "expert")
    frame = experts.rename_axis(["block", "part"]).reset_index(name="sparsity")
    yield from _sparse_parts("experts", "", frame.astype({"block": "int64", "part": "int64"}))


def _expert_sparsity(patterns: pd.DataFrame, *by: str) -> pd.Series:
    """Return the sparsity of experts, whose matrices are summed, by some columns."""
    experts = patterns[patterns["expert"].notna()]
    weights = (experts["rows"] * experts["columns"]).astype(float)
    keys = [experts[key] for key in by]
    return (weights * experts["sparsity"]).groupby(keys).sum() / weights.groupby(keys).sum()


def _sparse_parts(key: str, projection: str, rows: pd.DataFrame) -> Iterator[Part]:
    # Two matrices of one projection in a block would share a cell of the chart.
    is_unique = not rows.duplicated(["block", "part"]).any()
    if len(rows) > 1 and is_unique and (rows["sparsity"] > 0).any():
        yield Part(key, projection, rows)


class Dead(NamedTuple):
    """Rows, columns, heads and layers of a variant's prunable matrices that are all zero.

    Attributes
    ----------
    rows, columns : pandas.Series of int
        Numbers of zero outputs and zero inputs, by module; modules without any are left out.
    heads : pandas.Series of int
        Numbers of zero attention heads, by projection whose heads were counted.
    layers : list of str
        Modules without a nonzero weight; their rows, columns and heads count above, too.
    """

    rows: pd.Series
    columns: pd.Series
    heads: pd.Series
    layers: list[str]


def dead(patterns: pd.DataFrame) -> Dead:
    """Return the all-zero rows, columns, heads and layers of one variant.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    >>> zeros = dead(sr.weight_patterns(sr.masked(pruning)))
    >>> int(zeros.rows.sum()), int(zeros.heads.sum()), zeros.layers
    (45, 0, [])
    """
    names = patterns["module_name"]

    def counted(share: str, size: str) -> pd.Series:
        # The share times the size is a whole number but for rounding.
        numbers = (patterns[share].fillna(0.0) * patterns[size]).round().astype("int64")
        return _positive_sums(numbers, names)

    heads = patterns["head_sparsity"].map(dead_heads)
    sparsity = patterns["sparsity"].groupby(names, sort=False).min()
    return Dead(
        counted("zero_rows", "rows"),
        counted("zero_columns", "columns"),
        _positive_sums(heads.astype("int64"), names),
        [str(name) for name in sparsity.index[sparsity == 1]],
    )


def dead_heads(shares: Sequence[float] | None) -> int:
    """Return the number of heads without a nonzero, given their sparsity where it was counted."""
    return 0 if shares is None else [*shares].count(1)


def _positive_sums(counts: pd.Series, names: pd.Series) -> pd.Series:
    sums = counts.groupby(names, sort=False).sum()
    return sums[sums > 0]


def experts_frame(variants: Sequence[Variant]) -> pd.DataFrame | None:
    """Return the router use of variants that lack some experts, null where it was not measured.

    Models that they were made from are included where their use is known. None without any.
    """
    uses = {v.kept.weights: v.kept.use for v in variants if v.kept and v.kept.use is not None}
    frames = []
    for variant in variants:
        kept = variant.kept
        use = uses.get(kept.weights if kept else variant.weights)
        if kept and (use is None or kept.use is not None):
            use = _unmeasured(kept) if kept.use is None else kept.use
        if use is not None:
            places = zip(use["module_name"], use["expert"], strict=True)
            flags = [not kept or expert in kept.kept[name] for name, expert in places]
            frames.append(use.assign(variant=variant.name, is_kept=flags))
    if not frames:
        return None
    rows = pd.concat(frames, ignore_index=True)
    return typed("experts", rows.reindex(columns=[*TABLES["experts"]]))


def _unmeasured(kept: KeptExperts) -> pd.DataFrame:
    """Return a row per expert with no more than its place."""
    blocks = {module.name: module.block for module in kept.weights.modules}
    places = [(name, blocks[name], n) for name, count in kept.counts.items() for n in range(count)]
    return pd.DataFrame(places, columns=["module_name", "block", "expert"])


def overlap_note(one: KeptExperts, other: KeptExperts) -> str:
    """Return a note on the experts of a list that another calibration text keeps, too.

    Modules are the units of the interval. It is left out for fewer than five modules, or if the
    share is the same in all.
    """
    frame = one.overlap(other)
    due = frame["both"] + frame["first"]
    counts = {"kept": int(frame["both"].sum()), "due": int(due.sum()), "modules": len(frame)}
    mean = mean_over(frame["both"], due, block=1)
    ends = {}
    if mean and mean.error:
        low, high = mean.interval()
        ends = {"low": max(low, 0.0), "high": min(high, 1.0)}
    names = {"method": one.method, "experts": one.label.replace("of", " of ")}
    texts = {"text": one.basis and one.basis.name, "other": other.basis and other.basis.name}
    share = counts["kept"] / counts["due"]
    return say(OVERLAPS[bool(ends)], **names, **texts, **counts, share=share, **ends)


def router_use(study: StudyFrames) -> dict[str, pd.DataFrame]:
    """Return the rows of ``study.experts`` by variant, with figures beside the module's others.

    Returns
    -------
    dict of str to pandas.DataFrame
        Further columns: ``experts`` of the module, ``gate_share`` (gate mass ÷ that of the module),
        ``expert_use`` (``gate_share`` ÷ an even share), and ``expert_saliency`` (saliency ÷ its
        mean over the module's experts with tokens).
    """
    if study.experts is None:
        return {}
    by_module = study.experts.groupby(["variant", "module_name"], sort=False)
    count = by_module["gate_mass"].transform("size")
    share = study.experts["gate_mass"] / by_module["gate_mass"].transform("sum", min_count=1)
    saliency = study.experts["saliency"] / by_module["saliency"].transform("mean")
    figures = {"expert_use": share * count, "expert_saliency": saliency}
    rows = study.experts.assign(experts=count, gate_share=share, **figures)
    return {str(variant): use for variant, use in rows.groupby("variant", sort=False)}


def fewer_experts(study: StudyFrames) -> dict[str, pd.DataFrame]:
    """Return the :func:`router_use` of the variants that lack some experts."""
    return {name: rows for name, rows in router_use(study).items() if not rows["is_kept"].all()}


def drawn_use(study: StudyFrames) -> dict[str, pd.DataFrame]:
    """Return the :func:`router_use` of the first variant of each number of kept experts.

    That of the first variant if none lack experts.
    """
    lacking = fewer_experts(study)
    first = {int(rows["is_kept"].sum()): name for name, rows in reversed(lacking.items())}
    drawn = {name: lacking[name] for name in lacking if name in first.values()}
    return drawn or dict([*router_use(study).items()][:1])


def expert_lists(variants: pd.DataFrame, lacking: Collection[str]) -> list[list[str]]:
    """Return the unpruned variants that lack experts, a list for each model and number.

    Of those that keep the same experts only the first is in a list. There are none of several
    models, because the table does not name the model that a variant was made from.
    """
    if variants.loc[variants["expert_score"].isna(), "fingerprint"].nunique() > 1:
        return []
    rows = variants[variants["variant"].isin([*lacking]) & variants["method"].isna()]
    # The name of the model has the number.
    models = rows.drop_duplicates("fingerprint").groupby("model", sort=False)["variant"]
    return [names.tolist() for _, names in models]


def kept_words(rows: pd.DataFrame, key: str = "level.experts") -> str:
    """Return the number of kept experts of a variant's router use in words."""
    return say(key, kept=int(rows["is_kept"].sum()), experts=len(rows))
