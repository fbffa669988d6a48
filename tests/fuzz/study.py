"""Saved studies: refused, opened with a note that they were edited, or as they were.

Of one whose digest was computed anew figures may be other ones, if nothing in the study
contradicts them; sentences and tables can be made of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import saved
from helpers import Tiny, study_of

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import damage_bytes, damage_json, dumped, marked, number, parsed
from sparsity_report.study.files.json_files import digest_of
from sparsity_report.study.frames import EDITED_STUDY
from sparsity_report.study.schema import MEASURED
from sparsity_report.words.sentences import say

NAME = "study.json"
FRAMES = ("variants", "layers", "patterns", "levels", *MEASURED)


def damage_text(random: Random, files: Files) -> None:
    """Change one thing that the study says, anywhere in it."""
    if (told := _told(files)) is not None:
        files[NAME] = _sealed(random, damage_json(random, told))


def damage_cell(random: Random, files: Files) -> None:
    """Change one cell of a table, often by a little."""
    told = _told(files)
    if (table := _one_table(random, told)) is None:
        return
    rows = told[table]["rows"]
    row = random.choice(rows)
    if not isinstance(row, list) or not row:
        return
    place = random.randrange(len(row))
    row[place] = _other(
        random, row[place], [r[place] for r in rows if isinstance(r, list) and len(r) > place]
    )
    files[NAME] = _sealed(random, told)


def damage_rows(random: Random, files: Files) -> None:
    """Leave out rows, double them, exchange them, or do so with a column or a table."""
    told = _told(files)
    if (table := _one_table(random, told)) is None:
        return
    rows = told[table]["rows"]
    one, other = random.randrange(len(rows)), random.randrange(len(rows))
    kind = random.randrange(5)
    if kind == 0:
        del rows[one]
    elif kind == 1:
        rows.insert(other, rows[one])
    elif kind == 2:
        rows[one], rows[other] = rows[other], rows[one]
    elif kind == 3:
        told[table]["rows"] = []
    else:
        told[table] = random.choice((None, told[_one_table(random, told) or table]))
    files[NAME] = _sealed(random, told)


def damage_file(random: Random, files: Files) -> None:
    """Change some bytes."""
    data = files[NAME]
    assert isinstance(data, bytes)
    files[NAME] = damage_bytes(random, data)


def _other(random: Random, old: Any, cells: list[Any]) -> Any:
    kind = random.randrange(6)
    if kind == 0:
        return random.choice(cells)
    if kind == 1:
        return random.choice((None, "x", "", "\u202ex", True, [], [0.5], -1, 0, 1, 0.5, 2**40))
    if kind == 2:
        return marked(number(random))
    if isinstance(old, int | float) and not isinstance(old, bool):
        near = (old + 1, old - 1, -old, old * 2, old / 2, old * (1 + 1e-6), old // 2)
        return random.choice(near)
    if isinstance(old, list):
        return random.choice((old[1:], [*old, *old], old[::-1]))
    return random.choice(cells)


def _told(files: Files) -> Any:
    data = files[NAME]
    assert isinstance(data, bytes)
    return parsed(data)


def _one_table(random: Random, told: Any) -> str | None:
    """Choose a table that has rows; None where there is none."""
    tables = _tables(told)
    return random.choice(sorted(tables)) if tables else None


def _tables(told: Any) -> dict[str, list[Any]]:
    if not isinstance(told, dict):
        return {}
    tables = {name: part.get("rows") for name, part in told.items() if isinstance(part, dict)}
    return {name: rows for name, rows in tables.items() if isinstance(rows, list) and rows}


def _sealed(random: Random, told: Any) -> bytes:
    """Write a study, in half of the cases with a digest that fits."""
    data = dumped(told)
    if random.random() < 0.5:
        return data
    try:
        again = json.loads(data)
        again["digest"] = digest_of(again)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return data
    return json.dumps(again).encode()


def _bases(folder: Path) -> list[Base]:
    folder.mkdir(parents=True)
    tiny = study_of(sr.load(saved.filled(Tiny()), name="tiny"), 0.3, patterns=True, context=16)
    tiny = tiny.with_measured(**saved.measured(tiny.totals.set_index("variant")))
    bases = []
    for name, study in (("tiny", tiny), ("all", saved.study())):
        file = study.save(folder / f"{name}.json")
        bases.append(Base(name, {NAME: file.read_bytes()}, sr.read_study(file)))
    return bases


def _judge(folder: Path, base: Base) -> str:
    study = sr.read_study(folder / NAME)
    intact = _same(study, base.truth)
    original, now = (json.loads(data).get("digest") for data in (
        base.files[NAME], (folder / NAME).read_bytes()))  # fmt: skip
    if not intact and say(EDITED_STUDY) not in study.notes and now == original:
        return "opened with other content, and nothing said"
    if not intact:
        sr.write_csv(study, folder / "tables")
        levels = study.by_level
        _ = sr.summarize(study), study.audit, levels and levels.total("stored_bytes")
        study.save(folder / "again.json")
        again = sr.read_study(folder / "again.json", strict=True)
        return "" if _same(again, study) else "saved as another study"
    return ""


def _same(one: sr.Study, other: sr.Study) -> bool:
    if (one.notes, one.convention, one.context) != (other.notes, other.convention, other.context):
        return False
    for part in FRAMES:
        frame, due = getattr(one, part), getattr(other, part)
        if (frame is None) != (due is None):
            return False
        try:
            if frame is not None:
                pd.testing.assert_frame_equal(frame, due, check_exact=True)
        except AssertionError:
            return False
    return True


DAMAGE = (damage_text, damage_cell, damage_cell, damage_cell, damage_rows, damage_file)
STUDY = Family("study", _bases, DAMAGE, _judge, quick=30)
