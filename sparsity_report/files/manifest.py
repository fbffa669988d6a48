"""The list of the files that a run wrote into a folder, with digests, for ``sha256sum -c``.

The next run of another study removes them, so that no file of an earlier study stays beside its
report. Files that are not listed, and listed files that were changed since, stay.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from sparsity_report.files.atomic import write_file
from sparsity_report.files.filesystem import file_digest, one_line_errors

#: Name of the list in the folder of the files.
MANIFEST = ".sparsity-report.sha256"


class Manifest:
    """The list of a folder while a run writes into it.

    Parameters
    ----------
    folder : pathlib.Path
        Holds all files.
    source : str
        Digest of the file from which the study was read, or empty for a new study.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._source = folder, source
        former_source, self._former = _read(folder)
        self._is_same = bool(source) and source in {former_source, *self._former.values()}
        self._files: dict[str, str] = {}

    def add(self, files: Iterable[Path]) -> None:
        """List files that were just written, beside those of earlier runs."""
        for file in files:
            self._files[file.relative_to(self._folder).as_posix()] = file_digest(file) or ""
        # Without a source until all are written: an interrupted run is of no study.
        self._write({**self._former, **self._files}, "")

    def remove_others(self) -> tuple[int, list[str]]:
        """Remove listed files of another study; return their number, and names of changed files."""
        removed, changed = 0, []
        for name, digest in self._former.items():
            path = self._folder / name
            current = None if name in self._files else file_digest(path)
            if current == digest and self._is_same:
                self._files[name] = digest
            elif current == digest:
                with one_line_errors(path):
                    path.unlink()
                removed += 1
                with suppress(OSError):  # not empty
                    path.parent.rmdir()
            elif current is not None and not self._is_same:
                changed.append(name)
        self._write(self._files, self._source)
        return removed, changed

    def _write(self, files: Mapping[str, str], source: str) -> None:
        lines = [f"{digest}  {name}\n" for name, digest in sorted(files.items())]
        head = f"# Files of one run of sparsity-report, for sha256sum -c\n# study {source}\n"
        write_file(self._folder / MANIFEST, head + "".join(lines))


def _read(folder: Path) -> tuple[str, dict[str, str]]:
    """Return the digest of the study file that was rendered, and digests of files by name."""
    try:
        text, top = (folder / MANIFEST).read_text(encoding="utf-8"), folder.resolve()
        files = re.findall(r"^([0-9a-f]{64})  (.+)$", text, flags=re.M)
        source = re.search(r"^# study ([0-9a-f]{64})$", text, flags=re.M)
        inside = {n: digest for digest, n in files if (top / n).resolve().is_relative_to(top)}
    except (OSError, ValueError):
        return "", {}
    return source[1] if source else "", inside
