"""Files written for a study or a pair, and the lines printed with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsity_report.cli.libraries import import_altair
from sparsity_report.cli.options import DiffOptions, DistanceOptions, Outputs, PairOptions
from sparsity_report.cli.terminal import complain, open_page, tell
from sparsity_report.counting.progress import bar
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files.atomic import check_folder, together, write_file
from sparsity_report.words.sentences import say, says

if TYPE_CHECKING:
    from sparsity_report.study.comparison import Study

# Key of the sentences on texts that variants wrote.
_PRINTED = ("finding.beats", "finding.not_separated", "finding.unpaired", "finding.continuation")


def check_writable(out: Path) -> None:
    """Refuse a folder that cannot be written to, before counting."""
    if out.exists() and not out.is_dir():
        raise SparsityReportError(f"--out {out} exists and is not a folder; choose another")
    check_folder(out)


def check_outputs(outputs: Outputs) -> None:
    """Refuse outputs that cannot be written, drawn or opened, before counting."""
    if outputs.shown and not (outputs.html or outputs.pdf):
        raise SparsityReportError("--open has no report to open; leave out --no-html, or add --pdf")
    check_writable(outputs.out)
    if outputs.drawn:
        import_altair()
        from sparsity_report.draw.vega import check_room

        check_room()


def write(study: Study, outputs: Outputs, source: str | None = "") -> None:
    """Write the files of a study, all or none, and print its main findings."""
    import sparsity_report as sr

    out, folder = outputs.out, outputs.template_dir
    report = partial(sr.write_report, study, template_dir=folder)
    steps: list[tuple[bool, str, Callable[[Path], object]]] = [
        (outputs.study, "study.json", study.save),
        (outputs.csv, "structural_layers/*.csv", partial(sr.write_csv, study)),
        (outputs.png, "figures/*.png", partial(sr.write_figures, study)),
        (outputs.html, "report.html", report),
        (outputs.pdf, "report.pdf", report),
        (outputs.markdown, "report.md", report),
        (outputs.thesis, "thesis/*", partial(sr.write_thesis, study, template_dir=folder)),
    ]
    wanted = {label: write for asked, label, write in steps if asked}
    summary = f"Written to {out}: {', '.join(wanted) or 'nothing'}"
    if wanted:
        with together(out, source) as files, bar("writing", unit="file") as progress:
            for number, (label, write) in enumerate(wanted.items(), 1):
                progress(number - 1, len(wanted), label)
                write(out / label.partition("/*")[0])
                progress(number, len(wanted), label)
        if files.removed:
            summary += f"; removed {len(files.removed)} files of another run"
    for line in answer(study):
        tell(line)
    tell(summary)
    if outputs.shown:
        page = out / ("report.html" if outputs.html else "report.pdf")
        open_page(page.resolve().as_uri())


def answer(study: Study) -> Iterator[str]:
    """Yield the verdict, the figures at the head of the report, and texts written by variants."""
    from sparsity_report.findings.strip_text import strip_texts
    from sparsity_report.findings.study_findings import topics
    from sparsity_report.findings.verdict import verdict
    from sparsity_report.study.notes import EDITED_STUDY, note_findings

    yield from note_findings(study.notes, {EDITED_STUDY})
    yield verdict(study)
    for figure in strip_texts(study.facts):
        yield say("cli.figure" if figure["note"] else "cli.figure_alone", **figure)
    for finding in topics(study)["quality"]:
        if any(says(finding, key) for key in _PRINTED):
            yield finding


def remark(study: Study) -> None:
    """Print notes on how models were opened, counted and measured."""
    for note in study.notes:
        complain(printable(note))


def check_files(paths: Iterable[Path], *suffixes: str) -> None:
    """Refuse files in unknown formats, before counting."""
    for path in paths:
        if path.suffix.lower() not in suffixes:
            known = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
            raise SparsityReportError(f"--out {path} has an unknown suffix; use {known}")


def give(
    result: Any,
    lines: Iterable[str],
    options: PairOptions | DiffOptions | DistanceOptions,
    report: Callable[[Path], object] | None = None,
    folders: Mapping[Path, Callable[[Path], object]] | None = None,
) -> None:
    """Print a result as lines or as JSON, and write its files, those of a folder all or none."""

    def save(path: Path) -> None:
        text = json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False)
        write_file(path, text)

    for line in [json.dumps(result.to_json())] if options.json else lines:
        tell(line)
    steps: list[tuple[Path, str, Callable[[Path], object]]] = [
        (path, str(path), report if report and path.suffix.lower() != ".json" else save)
        for path in options.out
    ]
    steps += [(path, f"{path}/*", write) for path, write in (folders or {}).items()]
    for folder in dict.fromkeys(path.parent for path, *_ in steps):
        with together(folder):
            for path, _, write in steps:
                if path.parent == folder:
                    write(path)
    for _, shown, _ in [] if options.json else steps:
        tell(say("cli.written_path", path=shown))
