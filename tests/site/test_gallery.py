"""Scripts of the gallery are short, and each picture has an alt text."""

import ast
import re
import sys

import pytest
from page_code import ROOT

import sparsity_report as sr

sys.path.append(str(ROOT / "docs" / "_ext"))

import gallery_pictures

SCRIPTS = sorted((ROOT / "docs" / "gallery" / "scripts").glob("plot_*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_short_and_described(script):
    text = script.read_text(encoding="utf-8")
    assert len(text.split('"""')[2].strip().splitlines()) <= 25
    assert "picture" in {getattr(n, "id", "") for n in ast.walk(ast.parse(text))}
    assert len(gallery_pictures.alt_text(script)) > 20


class Paths:
    """The names of pictures that Sphinx-Gallery gives a script."""

    def __init__(self, folder):
        self.image_path, self.number = str(folder / "pictures" / "x_{0:03}.png"), 0

    def __next__(self):
        self.number += 1
        return self.image_path.format(self.number)


def test_each_kind_of_picture(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "report.html").write_text("a page")
    study = sr.compare(sr.dense(sr.load()))
    charts = study.layers.assign(layer=study.layers["module_name"])
    pictures = {
        r"image:: /pictures/x_001.svg\n +:alt: Zeros": sr.bar_plot(charts, "layer", "total", "T"),
        "download:.* </pictures/script.html>": tmp_path / "report.html",
        "raw:: html\n\n    <": study,
        "^$": None,
    }
    script = tmp_path / "script.py"
    script.write_text('"""\nTitle\n=====\n\nZeros by 0.5 %. More.\n"""\n')
    for expected, picture in pictures.items():
        variables = {
            "example_globals": {"picture": picture},
            "image_path_iterator": Paths(tmp_path),
            "src_file": str(script),
        }
        text = gallery_pictures.scrape(None, variables, {"src_dir": str(tmp_path)})
        assert re.search(expected, text), text
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "script.html",
        "x_001.svg",
    ]
