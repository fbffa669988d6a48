"""Payload of a study: its counts, its levels by policy, and the texts that the viewer shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.pruning_policies import families, read_method
from sparsity_report.errors import printable
from sparsity_report.findings.checkpoint_findings import strip_names
from sparsity_report.findings.first_screen import model_names
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.study.derived.heads_experts import inner
from sparsity_report.study.derived.layer_metrics import module_magnitudes
from sparsity_report.study.derived.removed_strips import strips
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.heatmap_grid import Grid
from sparsity_report.study.layers import records, use_ratio
from sparsity_report.study.levels import Levels, bytes_beside
from sparsity_report.study.policy_names import GLOBAL, selection_rule
from sparsity_report.study.schema import COLUMNS
from sparsity_report.study.sweep import ladders, thresholds
from sparsity_report.untrusted.display_text import clip, distinct_names
from sparsity_report.viewer.copied_code import CopiedCode
from sparsity_report.viewer.measured_scores import measured_levels, measured_scores
from sparsity_report.viewer.payload import Arrays, Contents, common_ratio, encode, nearest
from sparsity_report.viewer.viewer_metrics import (
    aligned,
    compared_layers,
    compared_metrics,
    spreads,
    study_metrics,
)
from sparsity_report.words.catalogue import catalogue
from sparsity_report.words.display_names import (
    display_name,
    group_name,
    head,
    method_name,
)
from sparsity_report.words.number_format import perplexity, shape
from sparsity_report.words.sentences import say

FORMAT = 1
# Bars of a histogram, and heights of a bar.
_BARS, _STEPS = 40, 31
_PLACES, _ZERO = np.arange(_BARS + 1.0), np.zeros(1, np.int64)
# Details of a module in two checkpoints, with the kinds of numbers.
_DETAILS = {
    **dict.fromkeys(["weight_before", "weight_after", "zeros_before", "zeros_after"], "count"),
    **dict.fromkeys(["compared", "kept", "revived", "new"], "count"),
    "iou": "share",
    "changed": "count",
    "relative_change": "share",
    "certainty": "share",
}
_TEXTS: dict[str, Callable[[Any], str]] = {
    "after_name": partial(clip, limit=200),
    "alignment": partial(display_name, "alignment"),
    **dict.fromkeys(("shape_before", "shape_after"), shape),
    "correlation": COLUMNS["correlation"].format.write,
    **dict.fromkeys(("n_m_before", "n_m_after"), str),
}


def study_payload(study: StudyFigures) -> bytes:
    """Return what the viewer needs of a study."""
    contents = study_contents(study)
    return encode(contents.header, contents.arrays)


def study_contents(study: StudyFigures) -> Contents:
    """Return the contents of :func:`study_payload`."""
    arrays = Arrays()
    if study.matches is None:
        metrics, header = study_metrics(study), _counted(study, arrays)
    else:
        rows = compared_layers(study)
        metrics = [*compared_metrics(rows)]
        header = _compared(study, rows, arrays)
    names = pd.Index(header["modules"]["names"])
    listed = []
    for metric, figure in metrics:
        if figure is not None:  # modules without it have 0
            amounts, sizes = map(arrays.numbers, aligned(figure, names))
            metric = {**metric, "amounts": amounts, "sizes": sizes}
        listed.append(metric)
    figures = {metric["key"]: figure for metric, figure in metrics if figure is not None}
    header |= {"title": model_names(study), "metrics": listed}
    return Contents(header, arrays, figures)


def _counted(study: StudyFigures, arrays: Arrays) -> dict[str, Any]:
    """Return the header of a study of levels."""
    places = {name: n for n, name in enumerate(dict.fromkeys(study.layers["module_name"]))}
    names = list(places)
    positions = {str(name): place for place, name in enumerate(study.variants["variant"])}
    magnitudes = {} if study.weights is None else module_magnitudes(study.weights)
    levels, deviations = study.by_policy, spreads(study)
    first = study.facts.layers(str(study.variants["variant"].iloc[0]))
    copied = CopiedCode(study)
    header = {
        **_opening("study", study.layers),
        "variants": list(_variants(study, names, copied, arrays)),
        "policies": [
            policy_entry(policy, levels[policy], study, arrays)
            if policy in levels
            else {"key": policy, "label": policy_label(policy), "disabled": reason}
            for policy, reason in ladders(first, study.levels, study.weights).items()
        ],
        "hasWeights": study.weights is not None,
        "histograms": _histograms(magnitudes, places, arrays),
        "whyNoHistogram": _why_no_histogram(study),
        "deviation": arrays.numbers([deviations.get(name, math.nan) for name in names]),
        "inner": _inner(study, places, positions),
        "heads": _heads(study, places, positions),
        "twoFour": _two_four(study, places, positions),
        "baseline": positions[study.facts.baseline],
        "packed": packed_note(study),
        **_measured(study, positions),
        "code": copied.study_code,
        "command": copied.command,
    }
    return header | {"start": _start(study, header)}


def _compared(study: StudyFigures, rows: pd.DataFrame, arrays: Arrays) -> dict[str, Any]:
    """Return the header of two checkpoints; it starts at the prunable layer that differs most."""

    def add(values: pd.Series[Any]) -> int:
        return arrays.numbers(values.to_numpy(dtype=float, na_value=np.nan))

    either, known = rows["kept"] + rows["revived"] + rows["new"], rows.dropna(axis=1, how="all")
    _, moved = compared_metrics(rows)[0]
    shares = np.abs(common_ratio(moved.amounts, moved.sizes))
    order = np.argsort(-np.nan_to_num(np.where(rows["prunable"], shares, -1.0)), kind="stable")
    opening = _opening("pair", rows)
    return {
        **opening,
        "start": {
            "metric": "moved",
            "modules": opening["scopes"][0],
            "colors": "auto",
            "sort": "",
            "search": "",
            "detail": next((str(rows["module_name"].iloc[place]) for place in order), None),
            "selection": [],
        },
        "prunable": arrays.small(rows["prunable"].to_numpy(dtype=bool)),
        "overlap": {
            "bothZero": add(rows["kept"]),
            "onlyBefore": add(rows["revived"]),
            "onlyAfter": add(rows["new"]),
            "neither": add(rows["compared"] - either),
        },
        "rows": [
            *([head(k), add(known[k]), kind] for k, kind in _DETAILS.items() if k in known),
            *([head(key), _texts(rows, key, write), "text"] for key, write in _TEXTS.items()),
        ],
        "removed": [
            {
                "label": say(f"pair.strip.{kind}"),
                "name": name,
                "module": row.module,
                "among": row.among,
                "gone": list(row.gone),
            }
            for kind, modules in strips(study.facts.table("removed"))
            for name, row in zip(strip_names(modules), modules, strict=True)
        ],
    }


def _texts(rows: pd.DataFrame, key: str, write: Callable[[Any], str]) -> list[str | None]:
    """Return a detail of each module as text; None where it is missing or the module's name."""
    known = rows[key].notna() & (rows[key] != rows["module_name"])
    return [
        write(value) if is_known else None for value, is_known in zip(rows[key], known, strict=True)
    ]


def _opening(kind: str, layers: pd.DataFrame) -> dict[str, Any]:
    """Return the part of a header that studies and pairs share.

    Parameters
    ----------
    kind : {"study", "pair"}
    layers : pandas.DataFrame
        ``module_name``, ``block``, ``group`` and ``prunable``; of a module that occurs again, the
        first counts.
    """
    is_packed = "packing" in layers and layers["packing"].fillna("").ne("").any()
    base = say("viewer.base_file" if is_packed else "viewer.base_dense")
    rows = layers.drop_duplicates("module_name").reset_index(drop=True)
    grid = Grid(rows)
    projections = [grid.cells[code].projection for code in grid.codes]
    blocks = [None if pd.isna(block) else int(block) for block in rows["block"]]
    groups, names = list(rows["group"]), list(rows["module_name"])
    prunable = ["prunable"] if layers["prunable"].any() else []
    return {
        "format": FORMAT,
        "kind": kind,
        "words": {
            key.removeprefix("viewer."): text.replace("{base}", base)
            for key, text in catalogue().items()
            if key.startswith("viewer.")
        },
        "scopes": [*prunable, "all", *dict.fromkeys(groups)],
        "blocks": [f"block {block}" for block in sorted({n for n in blocks if n is not None})],
        "modules": {
            "names": names,
            # Texts of names that are not safe to show.
            "shown": {k: text for k, n in enumerate(names) if (text := printable(n)) != n},
            "blocks": blocks,
            "projections": projections,
            "groups": groups,
        },
        "labels": {
            "groups": {group: clip(group_name(group), 40) for group in dict.fromkeys(groups)}
        },
    }


def _variants(
    study: StudyFigures, names: list[str], copied: CopiedCode, arrays: Arrays
) -> Iterator[dict[str, Any]]:
    labels = distinct_names(list(study.variants["variant"]))
    for row, label in zip(records(study.variants), labels, strict=True):
        name, method, threshold = row["variant"], row["method"], row["threshold"]
        rows = study.facts.layers(name)
        rows = rows.assign(base=study.facts.bytes_before(name), rest=bytes_beside(rows))
        rows = rows.set_index("module_name").reindex(names)
        yield {
            "name": name,
            "label": label,
            "layout": row["layout"],
            "sparsity": study.facts.total(name, "sparsity_prunable"),
            "isFirst": study.facts.is_of_first(name),
            "threshold": None if pd.isna(threshold) else float(threshold),
            # The zeros of unpruned weights are their smallest magnitudes.
            "isMagnitude": pd.isna(method) or selection_rule(method) == "magnitude",
            "pattern": str(policy.pattern or "") if (policy := read_method(method)) else "",
            "isRepeated": name in copied.repeated,
            "command": copied.of_variant(row),
            "arrays": _arrays(rows, arrays),
            "shapes": [each if isinstance(each, tuple) else None for each in rows["shape"]],
            "dtypes": [None if pd.isna(dtype) else dtype for dtype in rows["dtype"]],
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
        "base": rows["base"],
    }
    flags = {"prunable": prunable, "runs": rows["runs_as_csr"].eq(True).fillna(False)}
    places = {
        key: arrays.numbers(column.to_numpy(dtype=float, na_value=np.nan))
        for key, column in numbers.items()
    }
    return places | {
        key: arrays.small(column.to_numpy(dtype=bool)) for key, column in flags.items()
    }


def policy_entry(
    policy: str, levels: Levels, study: StudyFigures, arrays: Arrays
) -> dict[str, Any]:
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
    family = families()[policy]
    at_levels = [family.at(share) for share in shares]
    costs = {
        "csr": ("stored_bytes", "csr"),
        "bitmask": ("stored_bytes", "bitmask"),
        "flops": ("flops_per_token", "csr"),
    }
    modules = pd.Index(study.layers["module_name"].unique())
    # One bound for all modules: those of each would be a sixth of the payload.
    weights = np.maximum(levels.weights, 1)[:, None]
    slack = np.ceil(1e6 * (levels.slack / weights).max(axis=0, initial=0.0)) / 1e6
    cuts = None
    if policy == GLOBAL and study.weights is not None:
        cuts = [known(cut) for cut in thresholds(study.weights, shares)]
        # A threshold known by its bucket is given as the middle of it.
        cuts = [
            cut and cut * (1 + 2**-8 * bool(bound)) for cut, bound in zip(cuts, slack, strict=True)
        ]
    return {
        "key": policy,
        "label": policy_label(policy),
        "levels": shares,
        "rows": arrays.numbers(modules.get_indexer(pd.Index(levels.names))),
        "left": arrays.levels(levels.left),
        "slack": slack.tolist(),
        "most": {key: [*map(known, levels.at_most(*cost))] for key, cost in costs.items()},
        "thresholds": cuts,
        "patterns": [str(each.pattern) for each in at_levels] if at_levels[0].pattern else None,
        "calls": [each.python(share) for each, share in zip(at_levels, shares, strict=True)],
        "commands": [each.command(share) for each, share in zip(at_levels, shares, strict=True)],
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


def packed_note(study: StudyFigures) -> str | None:
    """Return a sentence on the bytes that packed weights are compared with; None without any."""
    facts = study.facts
    if not (dtypes := facts.unpacked_dtypes(facts.baseline)):
        return None
    return say("storage.packed_comparison", packings=facts.packings(facts.baseline), dtypes=dtypes)


def coarse_histogram(magnitudes: Magnitudes) -> tuple[float, npt.NDArray[np.uint8]] | None:
    """Return the right edge and the heights of bars of equal width; None without weights to show.

    Heights are densities, the highest 255. The largest thousandth of the weights and infinite
    ones are left out.
    """
    finite = slice(-1 if magnitudes.infinite else None)
    values, counts = magnitudes.values[finite], magnitudes.counts[finite]
    if not counts.any() or values[-1] <= 0:
        return None
    reached = counts.cumsum()
    top = 1.02 * float(values[reached.searchsorted(0.999 * reached[-1])]) or float(values[-1])
    edges = _PLACES * (top / _BARS)
    edges[-1] = top
    at = values.searchsorted(edges)
    # Buckets do not end at the edges of bars: a bar reaches to the end of the bucket at its edge.
    bucket = 1 + 2**-7
    ends = np.minimum(np.concatenate([values, [values[-1] * bucket]])[at], edges * bucket)
    before = np.concatenate([_ZERO, reached])[at]
    ends[0] = 0.0
    widths = ends[1:] - ends[:-1]
    heights = np.divide(before[1:] - before[:-1], widths, out=np.zeros(_BARS), where=widths > 0)
    # Steps of two pixels, which take half the space of finer ones.
    steps = np.rint(_STEPS * heights / heights.max())
    return top, np.rint(255 / _STEPS * steps).astype(np.uint8)


def _histograms(
    magnitudes: Mapping[str, Magnitudes], places: Mapping[str, int], arrays: Arrays
) -> dict[str, Any] | None:
    drawn = [(name, coarse_histogram(counts)) for name, counts in magnitudes.items()]
    bars = [(places[name], *drawing) for name, drawing in drawn if drawing and name in places]
    if not bars:
        return None
    rows, tops, heights = zip(*bars, strict=True)
    return {
        "rows": arrays.numbers(rows),
        "bins": _BARS,
        "top": arrays.numbers(np.array(tops, dtype=np.float32)),
        "heights": arrays.small(np.concatenate(heights)),
    }


def _why_no_histogram(study: StudyFigures) -> str:
    """Return the reason why a layer has no histogram."""
    if study.weights is None:
        code = "sr.explore(study, weights=sr.load(…))"
        return say("explorer.histogram_needs_weights", code=code)
    return say("explorer.histogram_unavailable")


def _inner(
    study: StudyFigures, places: Mapping[str, int], positions: Mapping[str, int]
) -> dict[int, dict[int, dict[str, Any]]]:
    """Return zeros inside the matrices of each module, by variant and module."""
    return {
        position: {places[name]: zeros._asdict() for name, zeros in inner(rows).items()}
        for variant, position in positions.items()
        if not (rows := study.facts.patterns(variant)).empty
    }


def _heads(
    study: StudyFigures, places: Mapping[str, int], positions: Mapping[str, int]
) -> dict[int, dict[int, int]]:
    """Return the modules whose heads or experts a kernel can count, by variant.

    The value is the number of heads; 0 of a module that holds several experts.
    """
    return {
        positions[variant.name]: {
            places[module.name]: matrices[0].heads
            for module in variant.weights.modules
            if (matrices := [p for p in module.parameters if p.prunable and p.known])
            and (matrices[0].experts > 1 or (matrices[0].heads > 1 and len(matrices) == 1))
        }
        for variant in study.opened
    }


def _two_four(
    study: StudyFigures, places: Mapping[str, int], positions: Mapping[str, int]
) -> dict[int, list[int]]:
    """Return by variant the modules whose zeros are known to fit 2:4."""
    if study.patterns is None:
        return {}
    tables = {n: study.facts.lossless(variant, "layer") for variant, n in positions.items()}
    return {n: [places[m] for m in rows["name"][rows.index == "2:4"]] for n, rows in tables.items()}


def _measured(study: StudyFigures, positions: Mapping[str, int]) -> dict[str, Any]:
    """Return the scores of variants, and the perplexities of levels."""
    quality = None
    if known := measured_scores(study):
        texts = {positions[name]: text for name, text in known[1].items()}
        quality = {"name": known[0], "texts": texts}
    tokens = study.facts.vocabulary(str(study.variants["variant"].iloc[0]))
    scores = [
        {"policy": policy, "level": at, "value": score, "text": perplexity((score, tokens), "")}
        for policy in study.by_policy
        for at, score in measured_levels(study, policy)
    ]
    return {"quality": quality, "scores": scores}


def _start(study: StudyFigures, header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first state of the viewer: the variant that the verdict is about.

    Of the variants with its zeros, one with a score comes first, and the layout is CSR if the study
    has that. If exactly two distinct prunings are at the level of the verdict, the viewer opens on
    their difference. A is then the later one of the study and B the earlier one; otherwise B is the
    only other pruning, or the baseline.
    """
    variants = {variant["name"]: variant for variant in header["variants"]}
    fewer = () if study.facts.contenders else study.facts.lacking
    rivals = study.facts.main_level[1] if study.facts.contenders else []
    alike = study.facts.layouts_of(study.facts.headline)
    others = [name for name in study.facts.contenders if name not in alike]
    other = others[0] if len(others) == 1 else study.facts.baseline
    other, opened = rivals if len(rivals) == 2 else (other, study.facts.headline)
    first = next(iter(fewer), opened)
    same = [name for name in variants if name in study.facts.layouts_of(first)]
    layouts = {variants[name]["layout"] for name in same}
    texts = header["quality"]["texts"] if header["quality"] else ()
    scored = {header["variants"][place]["name"] for place in texts}
    opened = next((name for name in same if name in scored), first)
    policy = next((entry for entry in header["policies"] if "levels" in entry), None)
    levels, key = (policy["levels"], policy["key"]) if policy else ([0.0], "")
    a, b = (nearest(levels, variants[name]["sparsity"] or 0.0) for name in (opened, other))
    return {
        "sparsity": a,
        "policy": key,
        "variant": opened,
        "against_sparsity": b,
        "against_policy": key,
        "against": other,
        "layout": "csr" if "csr" in layouts else "dense",
        "metric": "difference" if len(rivals) == 2 else "sparsity",
        "modules": header["scopes"][0],
        "colors": "auto",
        "grouping": "group",
        "sort": "",
        "search": "",
        "detail": None,
        "selection": [],
    }
