"""A pair of checkpoints in a file: JSON that is read back exactly."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sparsity_report
from sparsity_report.errors import SparsityReportError, opening
from sparsity_report.files.atomic import write_file
from sparsity_report.study import schema
from sparsity_report.study.files.digest import digest_of
from sparsity_report.study.layers import with_shares
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, read_json

FORMAT = "sparsity-report pair"
VERSION = 1
# Tables of the file by the name of their columns, those that are given and those that follow.
_GIVEN = {"models": "pair_models", "layers": "pair_layers", "removed": "pair_removed"}
_SIDES = ("before", "after")
_DERIVED = ("survival", "groups", "totals", "sparsities")
EDITED = (
    "this pair was edited by hand after it was written: its digest is not that of its content; "
    "what follows from other figures was computed anew and agrees"
)


def write_pair(pair: Pair, path: str | os.PathLike[str], findings: Sequence[str]) -> Path:
    """Write a pair as JSON, see :meth:`Pair.save`."""
    data: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"sparsity-report {sparsity_report.__version__}",
        "digest": "",
        "notes": list(pair.notes),
        # For readers without this program, which says them anew from the numbers.
        "findings": list(findings),
        **{part: schema.plain_table(getattr(pair, part)) for part in (*_GIVEN, *_SIDES, *_DERIVED)},
    }
    data["digest"] = digest_of(data)
    return write_file(path, json.dumps(data, ensure_ascii=False, allow_nan=False))


def read_pair(path: str | os.PathLike[str], *, strict: bool = False) -> Pair:
    """Read a pair written by :meth:`Pair.save`.

    What follows from other figures is computed again and has to agree; a digest tells whether the
    file is as it was written, see :func:`read_study`.

    Parameters
    ----------
    path : path-like
    strict : bool
        Refuse a pair that was edited.

    Raises
    ------
    SparsityReportError
        The file is damaged, from a newer version, or disagrees with itself.
    """
    source = Path(path)
    with opening(source, "pair"):
        data = _parsed(source)
        if data["digest"] != digest_of(data):
            if strict:
                raise SparsityReportError(f"{source} is not as it was written: {EDITED}")
            data["notes"] = [*dict.fromkeys([*data["notes"], EDITED])]
        pair = Pair(
            **{part: schema.read(table, data[part]) for part, table in _GIVEN.items()},
            **{side: with_shares(schema.read("layers", data[side])) for side in _SIDES},
            notes=tuple(data["notes"]),
        )
        _check(pair, data)
    return pair


def _parsed(source: Path) -> dict[str, Any]:
    """Return what a file says, if it is a pair of a known version."""
    data = read_json(source, most=limits.STUDY_BYTES, once=True, finite=True)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise SparsityReportError(f"{source} is not a pair of sparsity-report")
    if (version := check_integer(data["version"], "version")) > VERSION:
        raise SparsityReportError(
            f"{source} is of version {version}, newer than this program's {VERSION}; "
            "upgrade sparsity-report"
        )
    if not isinstance(data["notes"], list) or not all(isinstance(n, str) for n in data["notes"]):
        raise ValueError("notes: are not text")
    return data


def _check(pair: Pair, data: dict[str, Any]) -> None:
    """Refuse tables that contradict each other."""
    layers = pair.layers
    if pair.models["side"].tolist() != list(_SIDES):
        raise ValueError("models: are not one before and one after")
    both = layers["kept"] + layers["revived"] + layers["new"] + layers["changed"]
    for good, wrong in (
        (both <= layers["compared"], "compared: is less than its parts"),
        (layers["compared"] <= layers["weight_before"], "compared: is more than there were"),
        (layers["compared"] <= layers["weight_after"], "compared: is more than there are"),
        (layers["kept"] + layers["revived"] <= layers["zeros_before"], "zeros_before: too few"),
        (layers["kept"] + layers["new"] <= layers["zeros_after"], "zeros_after: too few"),
        (layers["zeros_before"] <= layers["weight_before"], "zeros_before: too many"),
        (layers["zeros_after"] <= layers["weight_after"], "zeros_after: too many"),
    ):
        schema.refuse("layers", good, wrong)
    for part in _DERIVED:
        if schema.plain_table(getattr(pair, part)) != data[part]:
            raise ValueError(f"table {part} does not follow from the others")
