"""Files of templates: the user's folder first, then the package's."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files.package_data import shipped


def template_folders(template_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders of templates, the user's first."""
    folders = shipped("templates")
    if template_dir is None:
        return folders
    folder = Path(template_dir)
    if not folder.is_dir():
        near = _near(folder.name, _names(folder.parent))
        raise SparsityReportError(f"template_dir {printable(str(folder))} is not a folder{near}")
    known = {path.relative_to(root) for root in folders for path in root.rglob("*.*")}
    is_known = any((folder / path).is_file() for path in known)
    # The template of a section has the key of the section as its name.
    sections = [*(folder / "sections").glob("*.html.j2"), *(folder / "typst").glob("*.typ.j2")]
    if not (is_known or sections):
        names = {*map(str, known), *(part for path in known for part in path.parts)}
        near = "".join(_near(name, names) for name in _names(folder)[:3])
        raise SparsityReportError(
            f"template_dir {printable(str(folder))} holds no template; name its files as in the "
            f"package, such as report.html.j2{near}"
        )
    return [folder, *folders]


def template_text(name: str, template_dir: str | os.PathLike[str] | None = None) -> str:
    """Return the text of a template, the user's or else the package's."""
    files = (folder / name for folder in template_folders(template_dir))
    return next(file for file in files if file.is_file()).read_text(encoding="utf-8")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _near(name: str, known: Iterable[str]) -> str:
    """Suggest close matches for a misspelled name; empty if there are none."""
    near = [printable(other) for other in get_close_matches(name, sorted(known), n=3)]
    return f"; near {printable(name)}: {', '.join(near)}" if near else ""
