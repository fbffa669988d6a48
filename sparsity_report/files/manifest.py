"""The list of the files of one run, with digests, in the format of ``sha256sum``."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

#: Name of the list in the folder of the files.
MANIFEST = ".sparsity-report.sha256"


def read_manifest(folder: Path) -> tuple[str, dict[str, str]]:
    """Return the digest of the study file that was rendered, and digests of files by name."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        files = re.findall(r"^([0-9a-f]{64})  (.+)$", text, flags=re.M)
        source = re.search(r"^# study ([0-9a-f]{64})$", text, flags=re.M)
        return source[1] if source else "", {check_name(name): digest for digest, name in files}
    except (OSError, ValueError):
        return "", {}


def check_name(name: str) -> str:
    """Return a relative name that stays inside its folder; raise ValueError for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"{name!r} is not in this folder")
    return name


def manifest(source: str, files: Mapping[str, str]) -> str:
    """Return the text of the list of a study's files and their digests."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(files.items())]
    head = f"# Files of one run of sparsity-report, for sha256sum -c\n# study {source}\n"
    return head + "".join(lines)
