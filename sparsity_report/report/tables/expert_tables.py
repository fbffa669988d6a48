"""Tables of the use of experts, and of experts at one byte budget."""

import pandas as pd

from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.column_heads import columns_of, wide_table
from sparsity_report.report.tables.table_model import Table
from sparsity_report.study.comparison import Study
from sparsity_report.weights.packed.group_rounding import GROUP
from sparsity_report.words.sentences import say


def expert_map(rows: pd.DataFrame, figure: str, variant: str) -> Table:
    """Return a figure of :func:`.expert_use.router_use`, expert by block."""
    rows = rows[rows["block"].notna()]
    wide = rows.pivot(index="expert", columns="block", values=figure).rename(columns=str)
    removed = int((~rows["is_kept"]).sum())
    caption = say(f"caption.{figure}", variant=variant, removed=removed, experts=len(rows))
    return wide_table(figure, caption, wide, cells.TIMES)


def budgets(study: Study) -> Table | None:
    """Return the experts that fit into the bytes of all in fewer bits; None without patterns."""
    frame = study.expert_budgets
    if frame is None:
        return None
    keys = "bits fitting bytes gate_share token_share rounding_error"
    if frame["gate_share"].isna().all():
        keys = "bits fitting bytes rounding_error"
    unit, kind = cells.one_unit([*frame["bytes"], *frame["budget_bytes"]])
    few = frame["fitting"] < frame["per_token"]
    frame = frame.assign(fitting_note=few.map({True: say("label.too_few_experts"), False: ""}))
    variant, groups = frame["variant"].iloc[0], []
    for size, rows in frame.groupby("budget_bytes", sort=False):
        budget = {key: int(rows[key].iloc[0]) for key in ("experts", "budget_bits")}
        title = say("label.expert_budget", **budget, bytes=kind.write(size), unit=unit)
        groups.append((title, rows))
    caption = say("caption.expert_budgets", variant=variant, group=GROUP, unit=unit)
    columns = columns_of(keys, (1, 1), {"bytes": kind})
    return cells.grouped("expert_budgets", caption, columns, groups)
