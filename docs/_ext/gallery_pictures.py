"""Pictures of the gallery: a chart, a file of a chart, a report or a value that a script leaves.

Sphinx-Gallery calls :func:`scrape` after each block of a script. The sentence below the title of
the script is the alt text.
"""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sparsity_report as sr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sphinx_gallery.py_source_parser import Block

REPORTS = {".html", ".pdf"}
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'


def alt_text(script: Path) -> str:
    """Return the first sentence below the title of a script."""
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return re.split(r"\.(?= |$)", " ".join(text.split("\n\n")[1].split()))[0]


def save(picture: Any, path: Path) -> Path:
    """Save a chart as SVG, or copy a file under a name with its suffix."""
    if isinstance(picture, Path):
        return Path(shutil.copyfile(picture, path.with_suffix(picture.suffix)))
    path = path.with_suffix(".svg")
    picture.save(path)
    return path


def scrape(_: Block, variables: Mapping[str, Any], gallery: Mapping[str, Any]) -> str:
    """Return the reStructuredText of the picture that a block leaves; empty if there is none."""
    if (picture := variables["example_globals"].pop("picture", None)) is None:
        return ""
    paths, script = variables["image_path_iterator"], Path(variables["src_file"])
    if isinstance(picture, sr.Study):
        cell = picture._repr_mimebundle_()["text/html"]
        # The map of the cell is the thumbnail.
        drawing = cell[cell.index("<svg") + 4 : cell.index("</svg>") + 6]
        drawing = f'<svg {NAMESPACE} font-family="sans-serif" font-size="10"{drawing}'
        Path(next(paths)).with_suffix(".svg").write_text(drawing, encoding="utf-8")
        lines = (f"    {line}" for line in cell.splitlines())
        return "\n".join([".. raw:: html", "", *lines, ""])
    is_report = isinstance(picture, Path) and picture.suffix in REPORTS
    path = Path(paths.image_path).with_name(script.stem) if is_report else Path(next(paths))
    name = save(picture, path).relative_to(gallery["src_dir"]).as_posix()
    if is_report:
        return f":download:`Download the report of the demo </{name}>`\n"
    return f".. image:: /{name}\n    :alt: {alt_text(script)}\n"


def _get_sg_image_scraper() -> Any:
    return scrape
