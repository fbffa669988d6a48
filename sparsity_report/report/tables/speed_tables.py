"""Tables of timings, of the crossover of CSR and dense, and of support by runtimes."""

from typing import Any

import pandas as pd

from sparsity_report.report.tables.table_model import Cell, Table, table_of
from sparsity_report.sparse.runtime_support import LOOKED_AT, RUNTIMES, Support
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.schema import columns_of
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.display_names import display_name, head
from sparsity_report.words.sentences import say, some
from sparsity_report.words.value_formats import DURATION, WORDS

_WIDTHS = (1.2, 0.7, 1.6, 2.4)
_REASON = DURATION._replace(write=str)


def latency(study: StudyFigures) -> Table | None:
    """Return the times of layers and forward passes; None where none were measured.

    A reason replaces a time that the control does not allow to report.
    """
    frame = study.facts.speeds
    if frame is None:
        return None
    first = "variant name cache tokens seconds quartiles promised_speedup realised control_span"
    heads = {"name": say("column.item"), "cache": say("explorer.column_weights")}
    columns = columns_of(f"{first} kernel", **heads)
    machine, threads = clip(frame["machine"].iloc[0], 200), int(frame["threads"].iloc[0])
    caption = say("caption.latency", machine=machine, threads=threads)
    values = _intervals(frame, study.facts.speed_base)
    is_timed = frame["withheld"].isna()
    ends = frame[["seconds_low", "seconds_high"]].where(is_timed)
    values["quartiles"] = _tuples(ends, *ends.columns)
    medians: list[Any] = [
        seconds if pd.isna(why) else Cell(say(f"speed_reason.{why}"), format=_REASON)
        for seconds, why in zip(frame["seconds"], frame["withheld"], strict=True)
    ]
    values["seconds"] = medians
    return table_of("speed", caption, columns, values, note=say("table_note.speed"))


def crossover(study: StudyFigures) -> Table | None:
    """Return the sparsity from which CSR layers are faster; None where it is unknown."""
    rows = study.facts.crossovers
    if rows is None or not rows["verdict"].isin(("stated", "never", "above")).any():
        return None
    heads = {
        "name": head("shape"),
        "cache": say("explorer.column_weights"),
        "crossover": say("column.crossover"),
    }
    keys = ("verdict", "crossover_low", "crossover_sparsity", "crossover_high")
    values = rows.assign(crossover=_tuples(rows, *keys))
    columns = columns_of("name tokens cache crossover", **heads)
    return table_of("crossover", say("caption.crossover"), columns, values)


def _intervals(frame: pd.DataFrame, against: str) -> pd.DataFrame:
    """Return speeds with ratios, their intervals and those of the control as tuples."""
    has_span = (frame["variant"] != against) & frame["verdict"].isin(("stated", "same", "noise"))
    has_span &= frame["withheld"].isna() | frame["withheld"].eq("noise")
    spans = frame[["realised_low", "realised_high"]].where(has_span)
    spans.insert(0, "ratio", frame["realised_speedup"].where(frame["verdict"] == "stated"))
    controls = _tuples(frame, "control_low", "control_high")
    return frame.assign(realised=_tuples(spans, *spans.columns), control_span=controls)


def _tuples(frame: pd.DataFrame, *columns: str) -> pd.Series:
    """Return a column of tuples of some columns."""
    rows = zip(*(frame[column] for column in columns), strict=True)
    return pd.Series([*rows], index=frame.index, dtype=object)


def runtimes(study: StudyFigures) -> Table | None:
    """Return what each runtime does with each layout of the variants; None without a layout."""
    listed = []
    for layout, rows in study.runtimes.groupby("layout", sort=False):
        variants = some([*map(short_name, rows["variant"].unique())])
        title = say("page.runtime_layout", layout=display_name("runtime_layout", str(layout)))
        for runtime in rows["runtime"].unique():
            cells = _support_cells(RUNTIMES[runtime].cells[str(layout)])
            listed.append({"title": f"{title} ({variants})", **cells})
    columns = columns_of(
        "runtime version verdict source", dict.fromkeys(("runtime", "version", "verdict"), WORDS)
    )
    caption = say("caption.runtimes", date=LOOKED_AT)
    options: dict[str, Any] = {"title": "title", "style": "published", "widths": _WIDTHS}
    return table_of("runtimes", caption, columns, listed, **options) if listed else None


def _support_cells(cell: Support) -> dict[str, Cell | str | None]:
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
