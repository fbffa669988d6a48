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
from sparsity_report.report.tables import study_tables
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
    assert "stored bytes, unpacked" in (tmp_path / "thesis" / "example.tex").read_text()


def test_tables_figures_and_charts_name_the_bytes(studies):
    study = studies[0]
    notes = [tile["note"] for tile in strip_texts(study.facts)]
    assert "whole model, unpacked to float32" in notes
    assert "not with the file" in packed_note(study)
    heads = [column.label for column in study_tables.groups(study).columns]
    assert {"Bytes in the file", "Stored bytes, unpacked"} <= {*heads}
    for caption in (
        study_tables.storage(study, "Masked50").caption,
        study_tables.curve_caption(study),
    ):
        assert "unpacked" in caption
    assert "unpacked float32" in json.dumps(csr_bytes_curve(study).to_dict()["title"])


def test_plain_model_has_no_sentence_about_files(studies, tmp_path):
    study = studies[1]
    assert study.facts.bits_per_weight("Dense") == 32
    page = body(study, tmp_path)
    assert packed_note(study) is None
    for word in ("unpacked", "in the file", "Bits per weight"):
        assert word not in page
