"""Tables of the use of experts, and of experts at one byte budget."""

import pandas as pd

from sparsity_report.report.tables.table_model import Cell, Table, table_of, wide_table
from sparsity_report.study.comparison import Study
from sparsity_report.study.schema import columns_of
from sparsity_report.weights.packed.group_rounding import GROUP
from sparsity_report.words import value_formats as formats
from sparsity_report.words.sentences import say

_BUDGET = ("experts", "budget_bits", "budget_bytes")


def expert_map(rows: pd.DataFrame, figure: str, variant: str) -> Table:
    """Return a figure of :func:`.expert_use.router_use`, expert by block."""
    rows = rows[rows["block"].notna()]
    wide = rows.pivot(index="expert", columns="block", values=figure).rename(columns=str)
    removed = int((~rows["is_kept"]).sum())
    caption = say(f"caption.{figure}", variant=variant, removed=removed, experts=len(rows))
    return wide_table(figure, caption, wide, formats.TIMES)


def budgets(study: Study) -> Table | None:
    """Return the experts that fit into the bytes of all in fewer bits; None without patterns."""
    frame = study.expert_budgets
    if frame is None:
        return None
    keys = "bits fitting bytes gate_share token_share rounding_error"
    if frame["gate_share"].isna().all():
        keys = "bits fitting bytes rounding_error"
    unit, form = formats.one_unit([*frame["bytes"], *frame["budget_bytes"]])
    few = frame["fitting"] < frame["per_token"]
    notes = few.map({True: say("label.too_few_experts"), False: ""})
    titles = [
        say("label.expert_budget", experts=n, budget_bits=bits, bytes=form.write(size), unit=unit)
        for n, bits, size in zip(*(frame[key] for key in _BUDGET), strict=True)
    ]
    shown = frame.assign(fitting=[*map(Cell, frame["fitting"], notes)], title=titles)
    variant = frame["variant"].iloc[0]
    caption = say("caption.expert_budgets", variant=variant, group=GROUP, unit=unit)
    columns = columns_of(keys, {"bytes": form})
    return table_of("expert_budgets", caption, columns, shown, title="title", widths=(1, 1))
