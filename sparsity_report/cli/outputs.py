"""What is written of a study, and what is said of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparsity_report.cli.libraries import import_altair
from sparsity_report.cli.options import Outputs, Pairing
from sparsity_report.cli.terminal import bar, complain, tell
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files.atomic import check_folder, together
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from sparsity_report.study.comparison import Comparison
    from sparsity_report.study.pairs.pair import Pair

# What a pair of checkpoints is written as.
_REPORTS, _DATA = (".html", ".pdf"), ".json"


def check_writable(out: Path) -> None:
    """Refuse an impossible folder before minutes of counting, not after."""
    if out.exists() and not out.is_dir():
        raise SparsityReportError(f"--out {out} exists and is not a folder; choose another")
    check_folder(out)


def check_outputs(outputs: Outputs) -> None:
    """Refuse what cannot be written, drawn or shown before minutes of counting, not after."""
    if outputs.shown and not (outputs.html or outputs.pdf):
        raise SparsityReportError("--open opens the report: leave out --no-html, or add --pdf")
    check_writable(outputs.out)
    if outputs.drawn:
        from sparsity_report.draw.vega import check_room

        check_room()


def write(study: Comparison, outputs: Outputs, source: str | None = "") -> None:
    """Write what is wanted of a study, all or nothing, and say the most important about it."""
    import sparsity_report as sr
    from sparsity_report.findings.study_findings import headlines

    if outputs.drawn:
        import_altair()
    out, folder = outputs.out, outputs.template_dir
    report = partial(sr.write_report, study, template_dir=folder)
    steps: list[tuple[bool, str, Callable[[Path], object]]] = [
        (outputs.json, "study.json", study.save),
        (outputs.csv, "structural_layers/*.csv", partial(sr.write_csv, study)),
        (outputs.png, "figures/*.png", partial(sr.write_figures, study)),
        (outputs.html, "report.html", report),
        (outputs.pdf, "report.pdf", report),
        (outputs.thesis, "thesis/*", partial(sr.write_thesis, study, template_dir=folder)),
    ]
    wanted = {label: write for asked, label, write in steps if asked}
    said = f"Written to {out}: {', '.join(wanted) or 'nothing'}"
    if wanted:
        with together(out, source) as files, bar("writing", unit="file") as progress:
            for number, (label, write) in enumerate(wanted.items(), 1):
                progress(number - 1, len(wanted), label)
                write(out / label.partition("/*")[0])
                progress(number, len(wanted), label)
        if files.removed:
            said += f"; removed {len(files.removed)} files of another run"
    for finding in headlines(study):
        tell(str(finding))
    tell(said)
    if outputs.shown:
        _show(out / ("report.html" if outputs.html else "report.pdf"))


def _show(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        complain(f"no browser could be started: open {page} yourself, or name one in BROWSER")


def remark(study: Comparison) -> None:
    """Say what a report tells among its notes, but whoever runs this must know."""
    from sparsity_report.counting.disk_cache import CACHE_NOTES
    from sparsity_report.words.sentences import say_note

    for note in study.notes:
        if note.key in CACHE_NOTES:
            tell(f"sparsity-report: {printable(say_note(note))}", sys.stderr)


def check_pair_outputs(pairing: Pairing) -> None:
    """Refuse what cannot be written of a pair before both checkpoints are read."""
    for path in pairing.out or []:
        if path.suffix.lower() not in (*_REPORTS, _DATA):
            raise SparsityReportError(f"--out {path}: a pair is written as .html, .pdf or .json")
    if pairing.thesis is not None:
        check_folder(pairing.thesis)
    if pairing.thesis or any(path.suffix.lower() in _REPORTS for path in pairing.out or []):
        import_altair()


def write_pair_outputs(pair: Pair, pairing: Pairing) -> None:
    """Write what is wanted of two checkpoints, and say where it is."""
    import sparsity_report as sr

    folder = pairing.template_dir
    for path in pairing.out or []:
        if path.suffix.lower() == _DATA:
            pair.save(path)
        else:
            sr.write_report(pair, path, template_dir=folder)
        tell(say("cli.written_path", path=str(path)))
    if pairing.thesis is not None:
        sr.write_thesis(pair, pairing.thesis, template_dir=folder)
        tell(say("cli.written_path", path=f"{pairing.thesis}/*"))
    if pairing.json is not None:
        pair.save(pairing.json)
