"""Run the checks over every model class of the installed transformers; by hand, before a release.

From the root of a checkout: ``python tests/zoo/walk.py``. What cannot be built, such as for
want of pillow and timm, is listed with its reason. ``--write`` writes what of the sixty classes
of the tests is wrong into ``known.json``, and the page ``docs/reference/architectures.md``; with
``--chosen`` only the lines of the sixty. After a change that mends one of them; not to make a test
pass.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "support"))

import torch
import transformers

from zoo.checks import CHECKS, Subject, applies, forward
from zoo.chosen import NAMES
from zoo.page import PAGE, page, renewed
from zoo.tiny import walked

KNOWN = Path(__file__).with_name("known.json")


def walk(name: str, letters: str = "".join(CHECKS)) -> dict[str, Any]:
    """Build one class and run the checks: per letter "" where it passes, else what is wrong."""
    started = time.perf_counter()
    case = next(case for case in walked() if case.name == name)
    row: dict[str, Any] = {"name": name, "type": case.model_type, "table": case.table}
    try:
        subject = Subject(case.build())
    except Exception as error:
        return {**row, "built": _said(error)}
    row |= {"built": "", "parameters": sum(p.numel() for p in subject.model.parameters())}
    try:
        groups = subject.study.groups
        row["groups"] = list(groups["group"][groups["total"] > 0])
        row["prunable"] = int(subject.study.totals.loc[0, "prunable_total"]) / row["parameters"]
    except Exception:
        pass  # the first check says so
    try:
        forward(subject.model, 8)
        row["ran"] = ""
    except Exception as error:
        row["ran"] = _said(error)
    for letter in letters:
        if (letter in "dse" and row["ran"]) or not applies(letter, subject.model):
            continue
        try:
            row[letter] = CHECKS[letter](subject) or ""
        except Exception as error:
            row[letter] = _said(error)
    return {**row, "seconds": round(time.perf_counter() - started, 2)}


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def quiet() -> None:
    """One thread to a process, and no advice on kernels that are not installed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)


def table(rows: list[dict[str, Any]], letters: str) -> str:
    """Return the counts of each check, and what fails."""
    built = [row for row in rows if not row["built"]]
    ran = [row for row in built if not row["ran"]]
    lines = [f"{len(rows)} classes, {len(built)} built, {len(ran)} ran", ""]
    lines += ["| check | pass | fail |", "|---|---:|---:|", *counts(rows, letters)]
    for what in ("built", "ran", *letters):
        failing = [row for row in rows if row.get(what)]
        if failing:
            lines += ["", f"{what}:", *(f"- {row['name']}: {row[what]}" for row in failing)]
    return "\n".join(lines)


def counts(rows: list[dict[str, Any]], letters: str) -> list[str]:
    """Return how many classes pass each check."""
    lines = []
    for letter in letters:
        known = [row[letter] for row in rows if letter in row]
        wrong = sum(map(bool, known))
        what = (CHECKS[letter].__doc__ or "").split("\n")[0]
        lines.append(f"| {what} | {len(known) - wrong} of {len(known)} | {wrong or ''} |")
    return lines


def main() -> None:
    """Walk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="part of a class name")
    parser.add_argument("--chosen", action="store_true", help="the sixty of each run of the tests")
    parser.add_argument("--write", action="store_true", help="write known.json and the page")
    parser.add_argument("--checks", default="".join(CHECKS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write all as JSON")
    options = parser.parse_args()
    names = [case.name for case in walked()]
    if options.chosen:
        names = [name for name in NAMES if name in names]  # an older transformers lacks some
    if options.only:
        names = [name for name in names if any(part in name for part in options.only)]
    started = time.perf_counter()
    with ProcessPoolExecutor(options.processes, initializer=quiet) as pool:
        rows = list(pool.map(walk, names, [options.checks] * len(names), chunksize=4))
    print(table(rows, options.checks))
    print(f"\n{time.perf_counter() - started:.0f} s")
    if options.write:
        write(rows, whole=not (options.chosen or options.only))
    if options.out:
        _write(options.out, rows)


def write(rows: list[dict[str, Any]], whole: bool) -> None:
    """Write what fails of the sixty, and the page: all of it, or the lines of these classes."""
    known = json.loads(KNOWN.read_text("utf-8"))
    for row in rows:
        known[row["name"]] = {letter: row[letter] for letter in CHECKS if row.get(letter)}
    _write(KNOWN, {name: known[name] for name in NAMES if known.get(name)})
    text = page(rows, counts(rows, "".join(CHECKS))) if whole else PAGE.read_text("utf-8")
    PAGE.write_text(renewed(text, rows), "utf-8")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
