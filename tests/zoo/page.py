"""What the walk has seen of each class, as the page ``docs/reference/architectures.md``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from zoo import cases

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "architectures.md"
HEADINGS = {
    "CAUSAL_LM": "Causal language models", "SEQ_TO_SEQ_CAUSAL_LM": "Encoder-decoders",
    "MASKED_LM": "Masked language models", "IMAGE_TEXT_TO_TEXT": "Image and text",
    "SPEECH_SEQ_2_SEQ": "Speech to text", "CTC": "Speech to text by CTC",
    "TEXT_TO_WAVEFORM": "Text to sound", "TEXT_TO_SPECTROGRAM": "Text to spectrogram",
    "SEQUENCE_CLASSIFICATION": "Classes of a text", "TOKEN_CLASSIFICATION": "Classes of tokens",
    "IMAGE_CLASSIFICATION": "Vision encoders", "AUDIO_CLASSIFICATION": "Audio encoders",
}  # fmt: skip
SHORT = {"attention_linear": "attention", "mlp_linear": "mlp"}
LONG = 160  # of a note, in characters
INTRODUCTION = """\
# Architectures

Two lists: architectures whose figures are verified by hand, and every model class of transformers.
Without a config, groups follow from names and shapes, and the report says so. An unknown
architecture is counted without groups, and opened by names with `--by-names` or
`sr.load(path, config=False)`.

## Counted by hand

Tests hold these architectures to sums written out by hand, counted from the file and from the
module, and to torch's FLOP counter.

{table}

The model is built from its config on the meta device. GGUF: *yes* means written as llama.cpp does
and read back value by value. *From names* means that transformers cannot read the architecture
from GGUF. Groups then follow from tensor names, with the same totals, FLOPs and nonzeros, and the
model cannot run.

## Every class of transformers

`python tests/zoo/walk.py --write` writes this page. Every model class that the
installed transformers ({transformers}, torch {torch}) has in its tables of language, image-text
and speech models, and encoders besides, is built tiny from the defaults of its config and put
through the same checks:

| check | pass | fail |
|---|---:|---:|
{checks}

{built} of {classes} classes could be built, {ran} ran. Below, *prunable* is the share of the
parameters that pruning may choose from, of the tiny model. *FLOPs* says whether those of each
module, per token and per sequence, are those that a run multiplies at three lengths, with even
routing and eager attention. *CSR* says whether the model runs with its prunable matrices as CSR,
gives what Masked gives, and counts as derived. Notes say what is known to be wrong, or why a
class was not built or run here.
"""
HEADER = "| class | groups | prunable | FLOPs | CSR | notes |\n|---|---|---:|---|---|---|"


def line(row: dict[str, Any]) -> str:
    """Return the line of one class."""
    groups = ", ".join(SHORT.get(name, name) for name in row.get("groups", ()))
    prunable = f"{row['prunable']:.0%}".replace("%", " %") if "prunable" in row else "—"
    cells = [row["name"], groups or "—", prunable, _word(row, "d"), _word(row, "f"), _notes(row)]
    return f"| {' | '.join(cells)} |"


def _word(row: dict[str, Any], letter: str) -> str:
    if letter not in row or (letter == "f" and row["ran"]):
        return "—"
    return "no" if row[letter] else "yes"


def _notes(row: dict[str, Any]) -> str:
    said = [row[what] for what in ("built", "ran", *"abcdsef") if row.get(what)]
    short = [sentence if len(sentence) < LONG else f"{sentence[:LONG]}…" for sentence in said]
    return re.sub(r"([|<>*_`])", r"\\\1", "; ".join(short))


def page(rows: Sequence[dict[str, Any]], checks: Iterable[str]) -> str:
    """Return the whole page."""
    built = [row for row in rows if not row["built"]]
    counts = {
        "table": cases.table(), "transformers": transformers.__version__,
        "torch": torch.__version__.partition("+")[0], "checks": "\n".join(checks),
        "classes": len(rows), "built": len(built), "ran": sum(not row["ran"] for row in built),
    }  # fmt: skip
    parts = [INTRODUCTION.format(**counts)]
    for table, heading in HEADINGS.items():
        lines = [line(row) for row in rows if row["table"] == table]
        parts.append("\n".join([f"### {heading}\n", HEADER, *lines, ""]))
    return "\n".join(parts)


def renewed(text: str, rows: Iterable[dict[str, Any]]) -> str:
    """Return a page with the lines of some classes written anew."""
    for row in rows:
        pattern = re.compile(rf"^\| {row['name']} \|.*$", re.MULTILINE)
        text = pattern.sub(lambda _, row=row: line(row), text)
    return text
