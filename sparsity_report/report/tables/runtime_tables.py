"""The table of runtimes beside the layouts of a study's weights."""

from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.column_heads import columns_of
from sparsity_report.report.tables.table_model import Table, grouped
from sparsity_report.sparse.runtime_support import LOOKED_AT, RUNTIMES, Support
from sparsity_report.study.comparison import Study
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.display_names import display_name
from sparsity_report.words.sentences import say, some

_WIDTHS = (1.2, 0.7, 1.6, 2.4)


def runtimes(study: Study) -> Table | None:
    """Return what each runtime does with each layout of the variants; None without a layout."""
    groups = []
    for layout, rows in study.runtimes.groupby("layout", sort=False):
        variants = some([*map(short_name, rows["variant"].unique())])
        title = say("page.runtime_layout", layout=display_name("runtime_layout", str(layout)))
        shown = [
            _shown(RUNTIMES[runtime].cells[str(layout)]) for runtime in rows["runtime"].unique()
        ]
        groups.append((f"{title} ({variants})", shown))
    kinds = dict.fromkeys(("runtime", "version", "verdict"), cells.WORDS)
    columns = columns_of("runtime version verdict source", _WIDTHS, kinds)
    caption = say("caption.runtimes", date=LOOKED_AT)
    return grouped("runtimes", caption, columns, groups, "published") if groups else None


def _shown(cell: Support) -> dict[str, str | None]:
    """Return a cell as texts; the address has no scheme, by which it would become a link."""
    runtime = RUNTIMES[cell.runtime]
    notes = [display_name("runtime_note", cell.note)] if cell.note else []
    notes += [say("page.runtime_ended", date=runtime.ended)] if runtime.ended else []
    return {
        "runtime": runtime.name,
        "version": cell.version,
        "verdict": display_name("runtime_verdict", cell.verdict),
        "verdict_note": ", ".join(notes),
        "source": cell.source and cell.source.removeprefix("https://"),
    }
