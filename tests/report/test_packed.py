"""A packed model's page, paper, thesis, JSON and explorer say which bytes they speak of."""

import html
import json
import re

import packing
import pytest
from helpers import study_of
from papers import text_of

import sparsity_report as sr
from sparsity_report.draw.charts import csr_bytes_curve
from sparsity_report.findings.strip_text import strip_texts
from sparsity_report.report.tables import checkpoint_tables, study_tables
from sparsity_report.study.derived.strip import strip
from sparsity_report.viewer.study_payload import packed_note
from sparsity_report.words.sentences import say

# Two blocks of q, o 64 × 64, k, v 32 × 64, gate, up, down 96 × 64: codes of 4 bits, to each 32 a
# scale of 16 and a zero point of 4; a group number of 32 bits to each input; the others float32.
WEIGHTS = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64)
PLAIN = 2 * 64 * 64 + 5 * 64
FILE = WEIGHTS // 2 + WEIGHTS // 32 * 5 // 2 + 4 * 2 * (6 * 64 + 96) + 4 * PLAIN


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folders = packing.packed_llama(tmp_path_factory.mktemp("llama"), "gptq-4-v1")
    return [study_of(sr.load(folder, name="llama"), 0.5) for folder in folders]


def body(study, folder, **options):
    text = sr.write_report(study, folder / "report.html", **options).read_text(encoding="utf-8")
    shown = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", shown))


@pytest.mark.tools
def test_page_paper_json_and_thesis_say_the_same_bytes(studies, tmp_path):
    study = studies[0]
    digits = f"{FILE:,}".replace(",", "\u202f")
    page, bits = body(study, tmp_path), f"{8 * FILE / (WEIGHTS + PLAIN):.2f}"
    assert f"Bytes in the file {say('column.file_bytes_note')} {digits}" in (
        re.sub(r"\s*\n\s*| +", " ", page)
    )
    paper = text_of(sr.write_report(study, tmp_path / "report.pdf"))
    assert f"Bitsperweight{bits}" in re.sub(r"\s", "", page).replace(
        "8×bytesinthefile÷parameters", ""
    )
    # The appendix with the totals is not printed.
    assert f"{FILE / 1000:.1f}kB" in paper
    assert bits in paper
    data = json.loads(study.save(tmp_path / "s.json").read_text())["totals"]
    assert [row[data["columns"].index("file_bytes")] for row in data["rows"]] == [FILE, None, None]
    sr.write_thesis(study, tmp_path / "thesis")
    numbers = (tmp_path / "thesis" / "numbers.tex").read_text()
    assert f"\\newcommand{{\\DenseFileBytes}}{{\\num{{{FILE}}}}}" in numbers
    assert f"\\newcommand{{\\DenseBitsPerWeight}}{{\\num{{{bits}}}}}" in numbers
    assert "\\DenseFileBytes{} bytes in the file (\\DenseFileBytesShort)" in (
        (tmp_path / "thesis" / "example.tex").read_text()
    )
    stored = int(study.totals["stored_bytes"].iloc[2])
    ratio = f"\\newcommand{{\\CSRFiftyStoredBytesToFileRatio}}{{\\num{{{stored / FILE:.2f}}}}}"
    assert ratio in numbers


def test_tables_figures_and_charts_name_the_bytes(studies):
    study = studies[0]
    notes = [tile["note"] for tile in strip_texts(study.facts)]
    assert "whole model, packed → unpacked to float32" in notes
    assert packed_note(study).endswith("and are compared with the file.")
    heads = [column.label for column in study_tables.groups(study).columns]
    assert {"Bytes in the file", "Stored bytes, unpacked"} <= {*heads}
    assert "unpacked to float32" in study_tables.storage(study, "Masked50").note
    assert csr_bytes_curve(study) is None


def test_storage_of_a_packed_model_is_compared_with_its_file(studies):
    """Each row by arithmetic; the break-even is where the whole model is as large as the file."""
    table = study_tables.storage(studies[0], "Masked50")
    assert [column.label for column in table.columns][1:] == [
        "Prunable weights, bytes",
        "Whole model, bytes",
        "÷ the file",
        "Break-even",
    ]
    rows = {row.cells[0].value: [cell.value for cell in row.cells[1:]] for row in table.rows}
    prunable, nonzero = FILE - 4 * PLAIN, WEIGHTS // 2
    for layout, size, full, empty in (
        ("file", prunable, None, None),
        ("dense", 4 * WEIGHTS, None, None),
        ("bitmask", 4 * nonzero + WEIGHTS // 8, 4 * WEIGHTS + WEIGHTS // 8, WEIGHTS // 8),
    ):
        model = size + 4 * PLAIN
        even = None if full is None else (full - prunable) / (full - empty)
        assert rows[layout][:3] == [size, model, pytest.approx(model / FILE)]
        assert rows[layout][3] == (even if even is None else pytest.approx(even))


def test_plain_model_has_no_sentence_about_files(studies, tmp_path):
    study = studies[1]
    assert study.facts.bits_per_weight("Dense") == 32
    page = body(study, tmp_path)
    assert packed_note(study) is None
    for word in ("unpacked", "in the file", "Bits per weight"):
        assert word not in page


def test_a_pair_has_the_bytes_of_the_file(tmp_path):
    """The other checkpoint holds the same values in float32."""
    packed, plain = packing.packed_llama(tmp_path, "gptq-4-v1")
    pair = sr.compare_checkpoints(packed, plain)
    (size,) = (tile for tile in strip(pair.facts) if tile.key == "size")
    assert (size.before, size.after) == (FILE, (4 * (WEIGHTS + PLAIN),) * 2)
    heads = [row.cells[0].text for row in checkpoint_tables.changes(pair).rows]
    assert "Stored bytes, unpacked" in heads
