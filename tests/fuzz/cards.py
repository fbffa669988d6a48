"""A model card beside a checkpoint; what is kept of it is text, which a YAML reader finds again."""

from __future__ import annotations

from pathlib import Path
from random import Random

import yaml

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import NUMBERS, TEXTS, damage_bytes
from sparsity_report.report.hub_card import card, front_matter

NAME = "README.md"
_FIELDS = ("license", "license_name", "license_link", "language", "pipeline_tag", "base_model")
_LINES = (
    "a: &a [*a, *a]", "<<: *a", "a: &b {<<: [*a, *a], b: *a}", "- &c [*c]", f"x: {'1:' * 5000}1",
    f"{'[' * 3000}", "? [a, b]", "x: !!python/object:os.system {}", "%YAML 9.9", "\tx: y", "...",
    "x: |", "  - y", "model-index: &m [{results: *m}]", "--- !!binary x", "x: \"\\xZZ\"", "{", "}",
)  # fmt: skip
_VALUES = (*NUMBERS, *TEXTS, "*a", "&a x", "<<", "!!int x", ">-", "| ", "[en, fr]", "1:1:1", "'x")


def damage_lines(random: Random, files: Files) -> None:
    """Put a line into the metadata that no library likes, or exchange a value."""
    lines = files[NAME].split(b"\n")
    line = random.choice((*_LINES, f"{random.choice(_FIELDS)}: {random.choice(_VALUES)}"))
    place = random.randrange(1, len(lines) + 1)
    lines[place : place + random.randrange(2)] = [line.encode("utf-8", "surrogatepass")]
    files[NAME] = b"\n".join(lines)


def damage_file(random: Random, files: Files) -> None:
    """Change some bytes."""
    files[NAME] = damage_bytes(random, files[NAME])


def _bases(_: Path) -> list[Base]:
    whole = "license: other\nlicense_name: x\nlanguage: en\ntags:\n- a\nmodel-index:\n- name: b\n"
    return [Base("whole", {NAME: f"---\n{whole}base_model: a/b\n---\n# Title\n".encode()})]


def _judge(folder: Path, _: Base) -> str:
    found = front_matter(folder)
    if not found:
        raise sr.SparsityReportError("nothing is kept")
    text = card("", found, base_model=None, library=None, is_pruned=False)
    kept = {key: value for key, value in found.items() if key not in {"base_model", "library_name"}}
    again = yaml.safe_load(text.split("---\n")[1])
    del again["tags"]
    return "" if again == kept else f"{kept} became {again}"


CARDS = Family("cards", _bases, (damage_lines, damage_lines, damage_file), _judge, seconds=1)
