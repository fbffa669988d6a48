"""Payload of a study: its counts, its levels by policy, and the texts that the viewer shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.n_m_patterns import pattern_at
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.findings.score_text import measure_name, score_text
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived import layer_metrics
from sparsity_report.study.derived.heatmap_grid import Grid
from sparsity_report.study.derived.histograms import module_magnitudes
from sparsity_report.study.derived.layer_metrics import LayerFigure
from sparsity_report.study.derived.paired_facts import score_ends
from sparsity_report.study.derived.policy_names import (
    GLOBAL,
    LAYERWISE,
    is_level_of,
    selection_rule,
)
from sparsity_report.study.expert_use import FIGURES, drawn_use
from sparsity_report.study.layers import records, use_ratio
from sparsity_report.study.levels.budget import measured_levels
from sparsity_report.study.levels.levels import Levels, bytes_beside
from sparsity_report.study.levels.sweep import thresholds
from sparsity_report.study.schema import COLUMNS, METRICS, Column
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.viewer.copied_code import study_code
from sparsity_report.viewer.payload import Arrays, Floats, encode
from sparsity_report.words.catalogue import catalogue
from sparsity_report.words.display_names import group_name, method_name, part_name
from sparsity_report.words.number_format import perplexity
from sparsity_report.words.sentences import say

FORMAT = 1
# Bars of a histogram, and most layers whose histograms a payload holds.
_BARS, _HISTOGRAMS = 40, 12_000
# Heights of a bar.
_STEPS = 31
# Policies that levels may have, in the order of the menu; the last two never follow from counts.
_POLICIES = (GLOBAL, LAYERWISE, "N:4", "N:8", "wanda_one_pass", "random")
_CUT_NOTES = {
    "group": "explorer.sensitivity_note_group",
    "block": "explorer.sensitivity_note_block",
    "layer": "explorer.sensitivity_note_layer",
}


def study_payload(study: Study, columns: pd.DataFrame | None = None) -> bytes:
    """Return what the viewer needs of a study.

    Parameters
    ----------
    study : Study
    columns : pandas.DataFrame, optional
        Figures of the user, see :func:`sparsity_report.explore`.

    Raises
    ------
    SparsityReportError
        A column of the user has the name of a metric, or is no column of numbers of modules.
    """
    return encode(*study_contents(study, columns))


def study_contents(
    study: Study, columns: pd.DataFrame | None = None
) -> tuple[dict[str, Any], Arrays]:
    """Return the header and the arrays of :func:`study_payload`."""
    arrays, names = Arrays(), list(dict.fromkeys(study.layers["module_name"]))
    positions = {str(name): place for place, name in enumerate(study.variants["variant"])}
    magnitudes = {} if study.weights is None else module_magnitudes(study.weights)
    levels, deviations = study.by_policy, spreads(study)
    scopes = ["prunable"] if study.layers["prunable"].any() else []
    try:
        code, _ = study_code(study)
    except SparsityReportError:
        code = ""
    header = {
        **opening("study", study.layers, ", ".join(_models(study))),
        "scopes": [*scopes, "all", *dict.fromkeys(study.layers["group"])],
        "variants": list(_variants(study, names, arrays)),
        "policies": [
            policy_entry(policy, levels[policy], study, arrays)
            if policy in levels
            else {"key": policy, "label": policy_label(policy), "disabled": reason}
            for policy, reason in _reasons(study).items()
        ],
        "hasWeights": study.weights is not None,
        "histograms": _histograms(magnitudes, names, arrays),
        "whyNoHistogram": _why_no_histogram(study, magnitudes),
        "deviation": arrays.numbers([deviations.get(name, math.nan) for name in names]),
        "inner": _inner(study, names, positions),
        "experts": _router_use(study),
        "twoFour": _two_four(study, names, positions),
        "metrics": {key: _metric(METRICS[key]) for key in METRICS if key != "sensitivity"},
        "figures": [_figure(each, names, arrays) for each in own_figures(study, columns)],
        "baseline": positions[study.facts.baseline],
        "marks": [[positions[name], share] for name, share in study.facts.marks()],
        "packed": packed_note(study),
        **_measured(study, positions),
        "code": code,
    }
    return header | {"start": start(header)}, arrays


def opening(kind: str, layers: pd.DataFrame, title: str) -> dict[str, Any]:
    """Return the part of a header that studies and pairs share.

    Parameters
    ----------
    kind : {"study", "pair"}
    layers : pandas.DataFrame
        ``module_name``, ``block`` and ``group``; of a module that occurs again, the first counts.
    title : str
    """
    rows = layers.drop_duplicates("module_name").reset_index(drop=True)
    grid = Grid(rows)
    projections = [grid.cells[code].projection for code in grid.codes]
    blocks = [None if pd.isna(block) else int(block) for block in rows["block"]]
    groups, names = list(rows["group"]), list(rows["module_name"])
    return {
        "format": FORMAT,
        "kind": kind,
        "words": {
            key.removeprefix("viewer."): text
            for key, text in catalogue().items()
            if key.startswith("viewer.")
        },
        "title": title,
        "modules": {
            "names": names,
            # Texts of names that are not safe to show.
            "shown": {k: text for k, n in enumerate(names) if (text := printable(n)) != n},
            "blocks": blocks,
            "projections": projections,
            "groups": groups,
            "experts": _experts(names, blocks, projections),
        },
        "labels": {
            "groups": {group: clip(group_name(group), 40) for group in dict.fromkeys(groups)}
        },
    }


def _experts(
    names: Sequence[str], blocks: Sequence[int | None], projections: Sequence[str]
) -> list[int | None] | None:
    """Return the number after the block's in the names of modules that share cells of the map."""
    cells = pd.Series(list(zip(blocks, projections, strict=True)))
    shared = cells.duplicated(keep=False) & np.array(
        [block is not None for block in blocks], dtype=bool
    )
    if not shared.any():
        return None
    numbers: list[int | None] = []
    for name, is_shared in zip(names, shared, strict=True):
        after = [int(word) for word in name.split(".") if word.isdecimal()][1:]
        numbers.append(after[0] if is_shared and len(after) == 1 else None)
    return numbers


def _models(study: Study) -> list[str]:
    return [clip(name, 60) for name in dict.fromkeys(study.variants["model"])]


def _variants(study: Study, names: list[str], arrays: Arrays) -> Iterator[dict[str, Any]]:
    labels = distinct_names(list(study.variants["variant"]))
    first: dict[str, list[Any]] = {}
    for row, label in zip(records(study.variants), labels, strict=True):
        name, method, threshold = row["variant"], row["method"], row["threshold"]
        rows = study.facts.layers(name)
        rows = rows.assign(dense=study.facts.dense_bytes(name), rest=bytes_beside(rows))
        rows = rows.set_index("module_name").reindex(names)
        texts = {
            "shapes": [
                list(shape) if isinstance(shape, tuple) else None for shape in rows["shape"]
            ],
            "dtypes": [None if pd.isna(dtype) else dtype for dtype in rows["dtype"]],
        }
        first = first or texts
        yield {
            "name": name,
            "label": label,
            "layout": row["layout"],
            "sparsity": study.facts.total(name, "sparsity_prunable"),
            "isFirst": study.facts.is_of_first(name),
            "key": method,
            "model": row["fingerprint"],
            "threshold": None if pd.isna(threshold) else float(threshold),
            "isMagnitude": selection_rule(method) == "magnitude",
            "arrays": _arrays(rows, arrays),
            **{
                key: text for key, text in texts.items() if text is first[key] or text != first[key]
            },
        }


def _arrays(rows: pd.DataFrame, arrays: Arrays) -> dict[str, int]:
    """Add the arrays of a variant, whose rows are those of all modules."""
    prunable = rows["prunable"].eq(True)
    uses = rows["uses"].fillna(1.0).map(use_ratio)
    numbers = {
        "total": rows["total"],
        "nonzero": rows["nonzero"],
        "weightTotal": rows["weight_total"],
        "weightNonzero": rows["weight_nonzero"],
        "value": rows["dtype"].map(value_bytes, na_action="ignore"),
        "pointers": rows["row_pointers"],
        "columns": rows["columns"],
        "usesTop": uses.map(lambda ratio: ratio.numerator),
        "usesBottom": uses.map(lambda ratio: ratio.denominator),
        "rest": rows["rest"],
        "restFlops": rows["flops_per_token"].mask(prunable, 0),
        "flops": rows["flops_per_token"],
        "stored": rows["stored_bytes"],
        "dense": rows["dense"],
    }
    flags = {
        "prunable": prunable,
        "runs": rows["runs_as_csr"].eq(True).fillna(False),
        "sparse": prunable & rows["layout"].eq("csr"),
    }
    places = {
        key: arrays.numbers(column.to_numpy(dtype=float, na_value=np.nan))
        for key, column in numbers.items()
    }
    return places | {
        key: arrays.small(column.to_numpy(dtype=bool)) for key, column in flags.items()
    }


def policy_entry(policy: str, levels: Levels, study: Study, arrays: Arrays) -> dict[str, Any]:
    """Return the entry of a policy in the header, with its arrays added.

    Parameters
    ----------
    policy : str
    levels : Levels
        The model at the levels of the policy.
    study : Study
    arrays : Arrays
    """
    shares = levels.sparsities
    patterns = [pattern_at(policy, share) for share in shares]
    cuts = None
    if policy == GLOBAL and study.weights is not None:
        cuts = [known(cut) for cut in thresholds(study.weights, shares)]
    costs = {
        "csr": ("stored_bytes", "csr"),
        "bitmask": ("stored_bytes", "bitmask"),
        "flops": ("flops_per_token", "csr"),
    }
    most = {key: levels.at_most(*cost) for key, cost in costs.items()}
    modules = pd.Index(study.layers["module_name"].unique())
    # One bound for all modules: those of each would be a sixth of the payload.
    weights = np.maximum(levels.zeros + levels.left, 1)
    slack = np.ceil(1e6 * (levels.slack / weights).max(axis=0, initial=0.0)) / 1e6
    return {
        "key": policy,
        "label": policy_label(policy),
        "levels": shares,
        "rows": arrays.numbers(modules.get_indexer(pd.Index(levels.names))),
        "left": arrays.levels(levels.left),
        "slack": slack.tolist(),
        "most": {key: [known(size) for size in sizes] for key, sizes in most.items()},
        "thresholds": cuts,
        "patterns": None if None in patterns else [str(pattern) for pattern in patterns],
    }


def known(value: Any) -> float | int | None:
    """Return a number for JSON; None if it is unknown or infinite."""
    if pd.isna(value) or math.isinf(value):
        return None
    return int(value) if float(value).is_integer() else float(value)


def policy_label(policy: str) -> str:
    """Return the name of a pruning policy."""
    if policy.startswith("N:"):
        return say("explorer.n_m_patterns", m=policy[2:])
    return method_name(policy)


def _reasons(study: Study) -> dict[str, str]:
    """Return the policies in the order of the menu, each with the reason if it has no levels."""
    code = "sr.explore(study, weights=sr.load(…))"
    levels, reasons = study.by_level, dict.fromkeys(_POLICIES, "")
    reasons["wanda_one_pass"] = say("explorer.policy_needs_calibration")
    reasons["random"] = say("explorer.policy_needs_seed")
    if levels is None:
        return reasons | dict.fromkeys(_POLICIES[:4], say("explorer.policy_needs_levels"))
    reasons[LAYERWISE] = say("explorer.policy_needs_weights", code=code)
    for policy in ("N:4", "N:8"):
        has_zeros = levels.zeros[:, 0].any()
        key = "explorer.policy_needs_no_zeros" if has_zeros else "explorer.policy_needs_groups"
        reasons[policy] = say(key, m=policy[2:])
    return reasons


def packed_note(study: Study) -> str | None:
    """Return a sentence on the bytes that packed weights are compared with; None without any."""
    facts = study.facts
    if not (dtypes := facts.unpacked_dtypes(facts.baseline)):
        return None
    return say("storage.packed_comparison", packings=facts.packings(facts.baseline), dtypes=dtypes)


def coarse_histogram(
    magnitudes: Magnitudes, bars: int = _BARS
) -> tuple[float, npt.NDArray[np.uint8]] | None:
    """Return the right edge and the heights of bars of equal width; None without weights to show.

    Parameters
    ----------
    magnitudes : Magnitudes
    bars : int

    Returns
    -------
    tuple of (float, numpy.ndarray) or None
        Heights are densities, the highest 255. The largest thousandth of the weights and infinite
        ones are left out.
    """
    finite = np.isfinite(magnitudes.values)
    values, counts = magnitudes.values[finite], magnitudes.counts[finite]
    before = np.concatenate([[0], np.cumsum(counts)])
    if not before[-1] or values[-1] <= 0:
        return None
    top = 1.02 * float(values[np.searchsorted(before[1:], 0.999 * before[-1])])
    top = top or float(values[-1])
    edges = np.linspace(0, top, bars + 1)
    at = np.searchsorted(values, edges)
    # Buckets do not end at the edges of bars: a bar reaches to the first bucket of the next bar.
    ends = np.append(values, values[-1] * (1 + 2**-7))[at]
    ends[0] = 0.0
    widths = np.diff(ends)
    heights = np.divide(np.diff(before[at]), widths, out=np.zeros(bars), where=widths > 0)
    # Steps of two pixels, which take half the space of finer ones.
    steps = np.rint(_STEPS * heights / heights.max())
    return top, np.rint(255 / _STEPS * steps).astype(np.uint8)


def _histograms(
    magnitudes: Mapping[str, Magnitudes], names: list[str], arrays: Arrays
) -> dict[str, Any] | None:
    if not 0 < len(magnitudes) <= _HISTOGRAMS:
        return None
    position = {name: place for place, name in enumerate(names)}
    drawn = [(name, coarse_histogram(counts)) for name, counts in magnitudes.items()]
    shown = [(position[name], *drawing) for name, drawing in drawn if drawing and name in position]
    if not shown:
        return None
    rows, tops, heights = zip(*shown, strict=True)
    return {
        "rows": arrays.numbers(rows),
        "bins": _BARS,
        "top": arrays.numbers(np.array(tops, dtype=np.float32)),
        "heights": arrays.small(np.concatenate(heights)),
    }


def _why_no_histogram(study: Study, magnitudes: Mapping[str, Magnitudes]) -> str:
    """Return the reason why a layer has no histogram."""
    if study.weights is None:
        code = "sr.explore(study, weights=sr.load(…))"
        return say("explorer.histogram_needs_weights", code=code)
    if len(magnitudes) > _HISTOGRAMS:
        return say("explorer.histogram_needs_kernel")
    return say("explorer.histogram_unavailable")


def spreads(study: Study) -> dict[str, float]:
    """Return the standard deviation of weights before pruning, by module.

    It is known of modules with one matrix whose positions were read, and of those with one tensor
    whose magnitudes were counted.
    """
    magnitudes = {} if study.weights is None else module_magnitudes(study.weights)
    name = str(study.variants["variant"].iloc[0])
    first = study.facts.layers(name).set_index("module_name")
    sizes = {name: math.prod(shape) for name, shape in first["shape"].items()}
    alone = first["weight_total"].eq(pd.Series(sizes))
    known_spreads = {
        name: counts.root_mean_square
        for name, counts in magnitudes.items()
        if counts.total and alone.get(name, False)
    }
    if (frame := study.patterns) is not None:
        rows = frame[frame["variant"] == name]
        rows = rows[~rows["module_name"].duplicated(keep=False)]
        known_spreads |= dict(zip(rows["module_name"], rows["std"].astype(float), strict=True))
    return {name: spread for name, spread in known_spreads.items() if math.isfinite(spread)}


def _inner(
    study: Study, names: list[str], positions: Mapping[str, int]
) -> dict[int, dict[int, dict[str, Any]]]:
    """Return zeros inside the matrices of each module, by variant and module."""
    place = {name: number for number, name in enumerate(names)}
    inside = {
        position: {
            place[name]: {
                "heads": zeros.heads,
                "experts": zeros.experts,
                "zeroRows": zeros.zero_rows,
                "zeroColumns": zeros.zero_columns,
            }
            for name, zeros in study.facts.inner(variant).items()
        }
        for variant, position in positions.items()
    }
    return {position: modules for position, modules in inside.items() if modules}


def _router_use(study: Study) -> list[dict[str, Any]]:
    """Return the use and the saliency of experts, by variant and module; see :func:`.drawn_use`."""
    shown = []
    for (variant, rows), figure in product(drawn_use(study).items(), FIGURES):
        squares = [
            {
                "name": part_name("block", f"block {part['block'].iloc[0]}"),
                "values": [*map(known, part[figure])],
                "gone": np.flatnonzero(~part["is_kept"]).tolist(),
            }
            for _, part in rows.groupby("module_name", sort=False)
        ]
        heading = f"{say(f'chart.{figure}_title')} · {short_name(variant)}"
        shown.append({"title": heading, "high": max(1.01, rows[figure].max()), "rows": squares})
    return shown


def _two_four(study: Study, names: list[str], positions: Mapping[str, int]) -> dict[int, list[int]]:
    """Return by variant the modules whose zeros are known to fit 2:4."""
    if study.patterns is None:
        return {}
    place = {name: number for number, name in enumerate(names)}
    fitting = {}
    for variant, position in positions.items():
        rows = study.facts.storage(variant, "layer").loc[["2:4"]]
        fits = rows["lossless"].fillna(False).astype(bool) & rows["bytes"].notna()
        fitting[position] = [place[name] for name in rows.loc[fits, "name"]]
    return fitting


def own_figures(study: Study, columns: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return sensitivity and the columns of the user, as parts of the header.

    The value of ``figure`` is a :class:`.layer_metrics.LayerFigure`.

    Raises
    ------
    SparsityReportError
        A column has the name of a metric, or is no column of numbers of modules.
    """
    shown: list[dict[str, Any]] = []
    frame = study.sensitivity
    if frame is not None and len(frame):
        cut = layer_metrics.finest(frame)
        first = study.facts.layers(str(study.variants["variant"].iloc[0]))
        note = say(_CUT_NOTES[cut], level=float(frame["sparsity"].median()))
        column = COLUMNS["sensitivity"]
        words = {"key": column.name, "label": column.label, "kind": column.format.axis}
        figure = layer_metrics.measured_sensitivity(frame, first)
        shown.append({**words, "note": note, "ofParts": cut != "layer", "figure": figure})
    custom = {} if columns is None else layer_metrics.own_figures(columns, study.layers)
    if taken := sorted(set(custom) & set(METRICS)):
        raise SparsityReportError(say("explorer.metric_name_taken", name=repr(taken[0])))
    note = say("explorer.custom_metric_note")
    for name, figure in custom.items():
        words = {"key": name, "label": clip(name, 40), "note": note, "kind": "own"}
        shown.append({**words, "ofParts": False, "figure": figure})
    return shown


def _metric(column: Column) -> dict[str, Any]:
    """Return a metric that the viewer computes from counts."""
    kind = column.format.axis
    note = say(f"note.{column.name}")
    return {"label": column.label, "note": note, "kind": kind, "signed": kind == "points"}


def _figure(shown: Mapping[str, Any], names: list[str], arrays: Arrays) -> dict[str, Any]:
    """Add the amounts and sizes of a figure; modules without it have 0."""
    words = dict(shown)
    parts = aligned(words.pop("figure"), pd.Index(names))
    ids = dict(zip(("amounts", "sizes"), map(arrays.numbers, parts), strict=True))
    return {**words, **ids, "perVariant": None}


def aligned(figure: LayerFigure, names: pd.Index[str]) -> tuple[Floats, Floats]:
    """Return amounts and sizes of modules, 0 for those that the figure lacks."""
    places = figure.names.get_indexer(names)
    # The last element serves the modules that the figure lacks, whose place is -1.
    amounts, sizes = (np.append(part, 0.0)[places] for part in (figure.amounts, figure.sizes))
    return amounts, sizes


def _measured(study: Study, positions: Mapping[str, int]) -> dict[str, Any]:
    """Return quality against bytes, and the perplexities of levels."""
    quality, tradeoff = None, study.tradeoff
    first = str(study.variants["fingerprint"].iloc[0])
    if tradeoff is not None:
        quality = {
            "name": measure_name(tradeoff),
            "subject": clip(tradeoff.subject, 40),
            "moreIsBetter": tradeoff.more_is_better,
            "leftOut": [short_name(name) for name in tradeoff.left_out],
            "points": [
                {
                    "variants": [positions[name] for name in point.variants],
                    "bytes": point.place.bytes,
                    "value": point.value,
                    "ends": score_ends(study.facts, point.variants[0], point.value),
                    "text": score_text(tradeoff, point, study.facts.vocabulary(point.variants[0])),
                    "level": point.place.sparsity if point.place.source == first else None,
                    "policies": [
                        policy
                        for policy in study.by_policy
                        if is_level_of(point.place.method, policy)
                    ],
                }
                for point in tradeoff.points
            ],
        }
    tokens = study.facts.vocabulary(str(study.variants["variant"].iloc[0]))
    scores = [
        {
            "level": share,
            "value": score,
            "text": perplexity((score, tokens), ""),
            "policy": policy,
        }
        for policy in study.by_policy
        for share, score in measured_levels(study, policy)
    ]
    return {"quality": quality, "scores": scores}


def start(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first state of the viewer: the first pruning, as CSR if the study has that.

    A variant of this pruning with a score comes before one without. Without a pruning, the first
    state is a level of 30 % as CSR.
    """
    variants, marks = header["variants"], header["marks"]
    policy = next((entry for entry in header["policies"] if "levels" in entry), None)
    first = variants[marks[0][0]] if marks else variants[0]
    alike = ("sparsity", "model", "key")
    same = [v for v in variants if all(v[key] == first[key] for key in alike)]
    shown = next((v for v in same if v["layout"] == "csr"), first)
    share, layout = shown["sparsity"], shown["layout"] if marks or not policy else "csr"
    points = header["quality"]["points"] if header["quality"] else ()
    scored = [variants[position]["name"] for point in points for position in point["variants"]]
    named = min((shown["name"], *(v["name"] for v in same)), key=lambda name: name not in scored)
    wanted = share if marks and share is not None and shown["isFirst"] else 0.3
    levels = policy["levels"] if policy else [0.3]
    return {
        "sparsity": min(levels, key=lambda level: abs(level - wanted)),
        "policy": policy["key"] if policy else "",
        "variant": named if marks or not policy else "at level",
        "layout": "dense" if layout == "masked" else layout,
        "metric": "sparsity",
        "against": variants[header["baseline"]]["name"],
        "modules": header["scopes"][0],
        "grouping": "group",
        "sort": "",
        "curve": "quality" if header["quality"] else "bytes",
        "search": "",
        "detail": None,
        "selection": [],
    }
