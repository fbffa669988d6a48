"""Tables of memory to serve, and of an ideal code."""

from collections.abc import Iterator

from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.column_heads import columns_of
from sparsity_report.report.tables.table_model import Table, table_of
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.ideal_code import bits_per_prunable_weight
from sparsity_report.study.serving_memory import caches
from sparsity_report.weights.anatomy.cache_bytes import CONTEXT
from sparsity_report.words.sentences import say


def memory(study: Study) -> Table:
    """Return the bytes to serve each variant as its file, as it runs and in its smallest layout."""
    frame, facts = study.memory(), study.facts
    smallest = frame["variant"].map(lambda name: facts.smallest_layout(name, "model"))
    running = frame["variant"].map(lambda name: facts.total(name, "stored_bytes"))
    is_running = frame["layout"].str.match("dense|csr") & frame["weight_memory"].eq(running)
    frame = frame[frame["layout"].eq("file") | is_running | frame["layout"].eq(smallest)]
    parts = ["weight_memory", "kv_cache_memory", "state_memory", "memory"]
    if not frame["state_memory"].fillna(0).any():
        parts.remove("state_memory")
    unit, kind = cells.one_unit(n for key in parts for n in frame[key].dropna() if n)
    columns = columns_of(" ".join(["variant layout", *parts]), (1.6, 1), dict.fromkeys(parts, kind))
    limits = [cache.limit for cache in caches(study).values()]
    positions = sorted({min(CONTEXT, limit or CONTEXT) for limit in limits})
    dtypes = [*frame["cache_dtype"].unique()]
    caption = say("caption.memory", positions=positions, dtypes=dtypes, unit=unit)
    return table_of("memory", caption, columns, frame)


def unknown_caches(study: Study) -> Iterator[str]:
    """Yield the reasons why caches are unknown, with the variants of each."""
    reasons: dict[str, list[str]] = {}
    for variant, cache in caches(study).items():
        if cache.reason:
            reasons.setdefault(cache.reason, []).append(variant)
    for reason, variants in reasons.items():
        yield say("page.unknown_cache", variants=variants, reason=say(f"cache.{reason}"))


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
