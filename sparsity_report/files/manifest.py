"""The list of the files of one run, with their digests, as ``sha256sum`` writes it."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

#: Lists the files of a folder that one run has written, as ``sha256sum`` does.
MANIFEST = ".sparsity-report.sha256"


def read_manifest(folder: Path) -> tuple[str, dict[str, str]]:
    """Return of which study file the files of a folder were made, and their digests by name."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        files = re.findall(r"^([0-9a-f]{64})  (.+)$", text, flags=re.M)
        source = re.search(r"^# study ([0-9a-f]{64})$", text, flags=re.M)
        return source[1] if source else "", {inside(name): digest for digest, name in files}
    except (OSError, ValueError):
        return "", {}


def inside(name: str) -> str:
    """Return a name that stays in its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"{name!r} is not in this folder")
    return name


def manifest(source: str, files: Mapping[str, str]) -> str:
    """Return the list of files, by name with their digests, and of the study they show."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(files.items())]
    head = f"# Files of one run of sparsity-report, for sha256sum -c\n# study {source}\n"
    return head + "".join(lines)
