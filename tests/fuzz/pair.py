"""Saved pairs of checkpoints: refused, opened with a note that they were edited, or unchanged."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch
from helpers import Tiny

import sparsity_report as sr
from fuzz.family import Base, Family
from fuzz.study import DAMAGE, NAME
from sparsity_report.study.notes import EDITED_PAIR


def _bases(folder: Path) -> list[Base]:
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    base, smaller = Tiny(), Tiny(blocks=1)
    before = sr.load(base, name="tiny")
    pruned = sr.csr(sr.global_magnitude(before, 0.5)).module()
    smaller.load_state_dict(base.state_dict(), strict=False)
    bases = []
    for name, after in (("pruned", pruned), ("smaller", smaller)):
        pair = sr.compare_checkpoints(before, sr.load(after, name=name))
        file = pair.save(folder / f"{name}.json")
        bases.append(Base(name, {NAME: file.read_bytes()}, sr.read_pair(file)))
    return bases


def _judge(folder: Path, base: Base) -> str:
    pair = sr.read_pair(folder / NAME)
    if _same(pair, base.truth):
        return ""
    original, now = (
        json.loads(data).get("digest") for data in (base.files[NAME], (folder / NAME).read_bytes())
    )
    if EDITED_PAIR not in {note.key for note in pair.notes} and now == original:
        return "opened with other content, and nothing said"
    pair.sentences()
    pair.save(folder / "again.json")
    again = sr.read_pair(folder / "again.json", strict=True)
    return "" if _same(again, pair) else "saved as another pair"


def _same(one: sr.Pair, other: sr.Pair) -> bool:
    for field in fields(one):
        part, due = getattr(one, field.name), getattr(other, field.name)
        try:
            if isinstance(part, pd.DataFrame):
                pd.testing.assert_frame_equal(part, due, check_exact=True)
            elif part != due:
                return False
        except AssertionError:
            return False
    return True


PAIR = Family("pair", _bases, DAMAGE, _judge, quick=15)
