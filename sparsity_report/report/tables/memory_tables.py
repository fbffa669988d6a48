"""Table of an ideal code."""

from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.column_heads import columns_of
from sparsity_report.report.tables.table_model import Table, table_of
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.ideal_code import bits_per_prunable_weight
from sparsity_report.words.sentences import say


def ideal(study: Study) -> Table | None:
    """Return the bits per prunable weight of an ideal code, by part; None where none are known."""
    bits = {name: bits_per_prunable_weight(study.entropy, name) for name in study.facts.layouts}
    known = [{"variant": name, **each} for name, each in bits.items() if each]
    if not known:
        return None
    parts = [key for key in known[0] if key != "variant"]
    kinds = dict.fromkeys(parts, cells.figures(".2f"))
    columns = columns_of(" ".join(["variant", *parts]), (1.6, 1), kinds)
    return table_of("ideal", say("caption.ideal"), columns, known)
