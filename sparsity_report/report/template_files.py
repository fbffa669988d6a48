"""Files of templates: the user's folder first, then the package's."""

import os
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
        raise SparsityReportError(f"template_dir {printable(str(folder))} is not a folder")
    known = {path.relative_to(root) for root in folders for path in root.rglob("*.*")}
    is_known = any((folder / path).is_file() for path in known)
    # The template of a section has the key of the section as its name.
    sections = [*(folder / "sections").glob("*.html.j2"), *(folder / "typst").glob("*.typ.j2")]
    if not (is_known or sections):
        raise SparsityReportError(
            f"template_dir {printable(str(folder))} holds no template; name its files as in the "
            "package, such as report.html.j2"
        )
    return [folder, *folders]


def template_text(name: str, template_dir: str | os.PathLike[str] | None = None) -> str:
    """Return the text of a template, the user's or else the package's."""
    files = (folder / name for folder in template_folders(template_dir))
    return next(file for file in files if file.is_file()).read_text(encoding="utf-8")
