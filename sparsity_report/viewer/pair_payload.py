"""Payload of a pair: every figure of the viewer as amounts and sizes of modules, which add up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.findings.pair_labels import both, strip_names, strip_title
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import strips
from sparsity_report.study.pairs.pair_frames import gone_weights, zeros_left
from sparsity_report.study.schema import COLUMNS
from sparsity_report.untrusted.display_text import clip
from sparsity_report.viewer.payload import Arrays, Codes, Floats, common_ratio, encode
from sparsity_report.viewer.study_payload import opening
from sparsity_report.words.display_names import display_name, head
from sparsity_report.words.number_format import shape
from sparsity_report.words.sentences import say

Sums = tuple["pd.Series[Any]", "pd.Series[Any]"]


class _Figure(NamedTuple):
    """A figure of a pair: the key of its note, and its amounts and sizes by module."""

    note: str
    sums: Callable[[pd.DataFrame], Sums]
    kind: str = "share"
    is_root: bool = False


def _moved(rows: pd.DataFrame) -> Sums:
    return gone_weights(rows) + zeros_left(rows) - rows["zeros_before"], rows["weight_before"]


def _changes(rows: pd.DataFrame) -> Sums:
    """Return squared norms of the change and before, NaN where they are unknown."""
    squares = (rows["norm"] ** 2).where(rows["compared"] > 0, 0)
    return (rows["relative_change"] ** 2 * squares).where(squares.ne(0), 0), squares


FIGURES = {
    "moved": _Figure("pair.metric_zero_or_removed_note", _moved, "points"),
    "kept_share": _Figure(
        "pair.metric_zeros_kept_note", lambda r: (r["kept"], r["kept"] + r["revived"])
    ),
    "revived_share": _Figure(
        "pair.metric_zeros_revived_note", lambda r: (r["revived"], r["compared"])
    ),
    "new_share": _Figure("pair.metric_new_zeros_note", lambda r: (r["new"], r["compared"])),
    "relative_change": _Figure("pair.metric_relative_change_note", _changes, is_root=True),
    "iou": _Figure(
        "pair.metric_zeros_iou_note", lambda r: (r["kept"], r["kept"] + r["revived"] + r["new"])
    ),
}
# Details of a module, with the kinds of numbers.
_DETAILS = {
    **dict.fromkeys(["weight_before", "weight_after", "zeros_before", "zeros_after"], "count"),
    **dict.fromkeys(["compared", "kept", "revived", "new"], "count"),
    "iou": "share",
    "changed": "count",
    "relative_change": "share",
    "correlation": "own",
    "certainty": "share",
}
_TEXTS: dict[str, Callable[[Any], str]] = {
    "after_name": partial(clip, limit=200),
    "alignment": partial(display_name, "alignment"),
    **dict.fromkeys(("shape_before", "shape_after"), shape),
    **dict.fromkeys(("n_m_before", "n_m_after"), str),
}


def compared_layers(pair: Pair) -> pd.DataFrame:
    """Return the modules of either model that have weights, those of the base first."""
    layers = pair.layers[(pair.layers["weight_before"] > 0) | (pair.layers["weight_after"] > 0)]
    return layers.drop_duplicates("module_name").reset_index(drop=True)


def figure_values(rows: pd.DataFrame, key: str, codes: Codes = None) -> Floats:
    """Return a figure of modules, or of those with a common code; NaN where it is unknown."""
    amounts, sizes = map(_numbers, FIGURES[key].sums(rows))
    return common_ratio(amounts, sizes, codes, is_root=FIGURES[key].is_root)


def first(rows: pd.DataFrame) -> str | None:
    """Return the prunable module that differs most, else the first module."""
    moved = np.where(rows["prunable"], np.abs(figure_values(rows, "moved")), -1.0)
    return None if rows.empty else str(rows["module_name"].iloc[int(np.nan_to_num(moved).argmax())])


def pair_payload(pair: Pair) -> bytes:
    """Return the payload of a pair.

    A figure of several modules is the sum of their amounts ÷ the sum of their sizes, or the square
    root of that, as in ``pair.survival``. It is unknown where an amount is, and without sizes.
    """
    return encode(*pair_contents(pair))


def pair_contents(pair: Pair) -> tuple[dict[str, Any], Arrays]:
    """Return the header and the arrays of :func:`pair_payload`."""
    rows, arrays = compared_layers(pair), Arrays()

    def add(values: pd.Series[Any]) -> int:
        return arrays.numbers(_numbers(values))

    either = rows["kept"] + rows["revived"] + rows["new"]
    scopes = ["prunable"] if rows["prunable"].any() else []
    scopes += ["all", *dict.fromkeys(rows["group"])]
    header = {
        **opening("pair", rows, both(pair)),
        "scopes": scopes,
        "prunable": arrays.small(rows["prunable"].to_numpy(dtype=bool)),
        "figures": [_figure(key, figure, rows, add) for key, figure in FIGURES.items()],
        "overlap": {
            "bothZero": add(rows["kept"]),
            "onlyBefore": add(rows["revived"]),
            "onlyAfter": add(rows["new"]),
            "neither": add(rows["compared"] - either),
        },
        "rows": [
            *([head(key), add(rows[key]), kind] for key, kind in _DETAILS.items()),
            *([head(key), _texts(rows, key, write), "text"] for key, write in _TEXTS.items()),
        ],
        "removed": _removed(pair),
        "start": {
            "metric": "moved",
            "modules": scopes[0],
            "detail": first(rows),
            "search": "",
            "sort": "",
            "selection": [],
        },
    }
    return header, arrays


def _numbers(values: pd.Series[Any]) -> Floats:
    numbers: Floats = values.to_numpy(dtype=float, na_value=np.nan)
    return numbers


def _figure(
    key: str, figure: _Figure, rows: pd.DataFrame, add: Callable[[Any], int]
) -> dict[str, Any]:
    amounts, sizes = figure.sums(rows)
    return {
        "key": key,
        "label": COLUMNS[key].label,
        "note": say(figure.note),
        "kind": figure.kind,
        "amounts": add(amounts),
        "sizes": add(sizes),
        "signed": figure.kind == "points",
        "root": figure.is_root,
    }


def _texts(rows: pd.DataFrame, key: str, write: Callable[[Any], str]) -> list[str | None]:
    """Return a detail of each module as text; None where it is missing or the module's name."""
    known = rows[key].notna() & (rows[key] != rows["module_name"])
    return [
        write(value) if is_known else None for value, is_known in zip(rows[key], known, strict=True)
    ]


def _removed(pair: Pair) -> list[dict[str, Any]]:
    """Return the modules from which blocks, experts or heads were removed."""
    return [
        {
            "kind": strip.kind,
            "label": strip_title(strip),
            "name": name,
            "module": row.module,
            "among": row.among,
            "gone": list(row.gone),
        }
        for strip in strips(pair)
        for name, row in zip(strip_names(strip), strip.rows, strict=True)
    ]
