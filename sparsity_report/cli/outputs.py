"""Files written for a study, and the lines printed with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparsity_report.cli.options import Outputs
from sparsity_report.cli.terminal import print_line, print_warning
from sparsity_report.counting.progress import bar
from sparsity_report.errors import printable
from sparsity_report.files.atomic import check_folder
from sparsity_report.files.manifest import Manifest
from sparsity_report.words.sentences import say, says

if TYPE_CHECKING:
    from sparsity_report.api.study import Study

# Changed files of an earlier run that are named.
_NAMED = 3


def check_outputs(outputs: Outputs) -> None:
    """Refuse outputs that cannot be written or drawn, before counting."""
    kinds = {*outputs.kinds}
    check_folder(outputs.out)
    if kinds - {"csv", "study"}:
        from sparsity_report.draw.export import check_room

        check_room()


def write(study: Study, outputs: Outputs, source: str = "") -> None:
    """Write the files of a study, remove those of another, and print its main findings.

    `source` is the digest of the file from which the study was read, or empty for a new study.
    """
    import sparsity_report as sr

    out, folder = outputs.out, outputs.template_dir
    report = partial(sr.write_report, study, template_dir=folder)
    steps: dict[str, tuple[str, Callable[[Path], Path | list[Path]]]] = {
        "study": ("study.json", study.save),
        "csv": ("structural_layers/*.csv", partial(sr.write_csv, study)),
        "png": ("figures/*.png", partial(sr.write_figures, study)),
        "html": ("report.html", report),
        "pdf": ("report.pdf", report),
        "md": ("report.md", report),
        "thesis": ("thesis/*", partial(sr.write_thesis, study, template_dir=folder)),
    }
    wanted = dict(steps[kind] for kind in steps if kind in outputs.kinds)
    summary = f"Written to {out}: {', '.join(wanted)}"
    manifest = Manifest(out, source)
    with bar("writing", unit="file") as progress:
        for number, (label, write) in enumerate(wanted.items(), 1):
            progress(number - 1, len(wanted), label)
            written = write(out / label.partition("/*")[0])
            manifest.add(written if isinstance(written, list) else [written])
            progress(number, len(wanted), label)
    removed, changed = manifest.remove_others()
    if removed:
        summary += f"; removed {removed} files of another run"
    if changed:
        listed_names = printable(", ".join(changed[:_NAMED]))
        print_warning(
            f"{out}: files of an earlier run changed since and stay, {listed_names}; delete "
            "them if they show another study"
        )
    for line in summary_lines(study):
        print_line(line)
    print_line(summary)


def summary_lines(study: Study) -> Iterator[str]:
    """Yield the verdict, the figures at the head of the report, and texts written by variants."""
    from sparsity_report.findings.first_screen import first_screen
    from sparsity_report.findings.study_findings import topics
    from sparsity_report.study.frames import EDITED_STUDY, note_findings

    yield from note_findings(study.notes, {EDITED_STUDY})
    head = first_screen(study)
    yield head["verdict"]
    for figure in head["strip"]:
        yield say("cli.figure" if figure["note"] else "cli.figure_alone", **figure)
    yield from map(str, head["lines"])
    sentences = topics(study)
    yield from sentences["rivals"]
    yield from (each for each in sentences["quality"] if says(each, "finding.continuation"))
