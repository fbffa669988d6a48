"""Text is there, whole, on machines with few fonts or none."""

import subprocess
import sys

import pytest
from browser import check_no_label_is_cut, few_fonts
from papers import fonts, text_of

import sparsity_report as sr
from sparsity_report.draw.theme import FAMILY

DRAW = """
import sys
from pathlib import Path
import vl_convert
family, folder = sys.argv[1], Path(sys.argv[2])
svg = ('<svg xmlns="http://www.w3.org/2000/svg" width="200" height="50">'
       f'<text y="20" font-family="{family}">embedding</text>'
       f'<text y="40" font-family="{family}" font-weight="bold">output head</text></svg>')
(folder / "figure.pdf").write_bytes(vl_convert.svg_to_pdf(svg))
(folder / "figure.png").write_bytes(vl_convert.svg_to_png(svg))
"""


def drawn(family, folder, environment):
    folder.mkdir()
    subprocess.run([sys.executable, "-c", DRAW, family, folder], check=True, env=environment)
    return (folder / "figure.png").stat().st_size


@pytest.mark.tools
def test_figures_keep_their_text_on_a_machine_without_fonts(tmp_path):
    bare = few_fonts(tmp_path / "none")
    with_text = drawn(FAMILY, tmp_path / "with", bare)
    assert set(fonts(tmp_path / "with" / "figure.pdf").values()) == {True}
    assert text_of(tmp_path / "with" / "figure.pdf") == "embeddingoutputhead"
    # The look of a missing family.
    assert with_text > 2 * drawn("No Such Font", tmp_path / "without", bare)
    assert text_of(tmp_path / "without" / "figure.pdf") == ""


def test_no_label_of_a_report_is_cut(driver, demo_study, tmp_path):
    path = sr.write_report(demo_study, tmp_path / "report.html")
    check_no_label_is_cut(driver, path, tmp_path / "few")
