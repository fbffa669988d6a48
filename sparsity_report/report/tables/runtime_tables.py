"""The table of runtimes beside the layouts of a study's weights."""

from sparsity_report.report.tables.table_model import Cell, Table, table_of
from sparsity_report.sparse.runtime_support import LOOKED_AT, RUNTIMES, Support, support
from sparsity_report.study.comparison import Study
from sparsity_report.study.schema import columns_of
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.display_names import display_name
from sparsity_report.words.sentences import say, some
from sparsity_report.words.value_formats import WORDS

_WIDTHS = (1.2, 0.7, 1.6, 2.4)


def runtimes(study: Study) -> Table | None:
    """Return what each runtime does with each layout of the variants; None without a layout."""
    shown = []
    for layout, rows in study.runtimes.groupby("layout", sort=False):
        variants = some([*map(short_name, rows["variant"].unique())])
        title = say("page.runtime_layout", layout=display_name("runtime_layout", str(layout)))
        for runtime in rows["runtime"].unique():
            cells = _shown(support(runtime, str(layout)))
            shown.append({"title": f"{title} ({variants})", **cells})
    columns = columns_of(
        "runtime version verdict source", dict.fromkeys(("runtime", "version", "verdict"), WORDS)
    )
    caption = say("caption.runtimes", date=LOOKED_AT)
    looks = {"title": "title", "style": "published", "widths": _WIDTHS}
    return table_of("runtimes", caption, columns, shown, **looks) if shown else None


def _shown(cell: Support) -> dict[str, Cell | str | None]:
    """Return a cell as texts; the address has no scheme, by which it would become a link."""
    runtime = RUNTIMES[cell.runtime]
    notes = [display_name("runtime_note", cell.note)] if cell.note else []
    notes += [say("page.runtime_ended", date=runtime.ended)] if runtime.ended else []
    return {
        "runtime": runtime.name,
        "version": cell.version,
        "verdict": Cell(display_name("runtime_verdict", cell.verdict), ", ".join(notes)),
        "source": cell.source and cell.source.removeprefix("https://"),
    }
