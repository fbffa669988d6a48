"""Open a Transformer, see exactly what pruning does to it as Dense, Masked and CSR.

>>> import sparsity_report as sr
>>> weights = sr.load()                                    # the built-in demo model
>>> pruning = sr.global_magnitude(weights, sparsity=0.30)  # a value; nothing is modified
>>> study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
>>> study.totals[["variant", "sparsity_prunable"]].round(2).values.tolist()
[['Dense', 0.0], ['Masked30', 0.3], ['CSR30', 0.3]]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsity_report.charts import bar_plot as bar_plot
    from sparsity_report.comparison import Comparison as Comparison
    from sparsity_report.comparison import compare as compare
    from sparsity_report.comparison import read_study as read_study
    from sparsity_report.comparison import write_csv as write_csv
    from sparsity_report.difference import Difference as Difference
    from sparsity_report.difference import diff as diff
    from sparsity_report.errors import SparsityReportError as SparsityReportError
    from sparsity_report.explorer import Explorer as Explorer
    from sparsity_report.explorer import explore as explore
    from sparsity_report.figures import write_figures as write_figures
    from sparsity_report.findings import summarize as summarize
    from sparsity_report.groups import classify_module as classify_module
    from sparsity_report.language import speaking as speaking
    from sparsity_report.latency import crossover as crossover
    from sparsity_report.latency import measure_latency as measure_latency
    from sparsity_report.levels import sweep as sweep
    from sparsity_report.linear_csr import LinearCSR as LinearCSR
    from sparsity_report.linear_csr import convert_linears_to_csr_ as convert_linears_to_csr_
    from sparsity_report.notebook import write_notebook as write_notebook
    from sparsity_report.patterns import weight_patterns as weight_patterns
    from sparsity_report.pruning import Pruning as Pruning
    from sparsity_report.pruning import freeze_pruning_ as freeze_pruning_
    from sparsity_report.pruning import global_magnitude as global_magnitude
    from sparsity_report.pruning import layerwise_magnitude as layerwise_magnitude
    from sparsity_report.pruning import n_m as n_m
    from sparsity_report.pruning import prune_global_magnitude_ as prune_global_magnitude_
    from sparsity_report.pruning import select_prunable_linears as select_prunable_linears
    from sparsity_report.quality import perplexity as perplexity
    from sparsity_report.quality import sensitivity as sensitivity
    from sparsity_report.quality import sensitivity_correlation as sensitivity_correlation
    from sparsity_report.report import write_diff as write_diff
    from sparsity_report.report import write_report as write_report
    from sparsity_report.thesis import write_thesis as write_thesis
    from sparsity_report.variants import Variant as Variant
    from sparsity_report.variants import analyze_layers as analyze_layers
    from sparsity_report.variants import csr as csr
    from sparsity_report.variants import dense as dense
    from sparsity_report.variants import masked as masked
    from sparsity_report.variants import params_size_and_sparsity as params_size_and_sparsity
    from sparsity_report.weights import Weights as Weights
    from sparsity_report.weights import load as load

__version__ = "0.1.0"

# Where each public name lives; imported when first used, so that `import sparsity_report` loads
# neither torch nor altair.
_HOMES = {
    "Comparison": "comparison",
    "Difference": "difference",
    "Explorer": "explorer",
    "LinearCSR": "linear_csr",
    "Pruning": "pruning",
    "SparsityReportError": "errors",
    "Variant": "variants",
    "Weights": "weights",
    "analyze_layers": "variants",
    "bar_plot": "charts",
    "classify_module": "groups",
    "compare": "comparison",
    "convert_linears_to_csr_": "linear_csr",
    "crossover": "latency",
    "csr": "variants",
    "dense": "variants",
    "diff": "difference",
    "explore": "explorer",
    "freeze_pruning_": "pruning",
    "global_magnitude": "pruning",
    "layerwise_magnitude": "pruning",
    "load": "weights",
    "masked": "variants",
    "measure_latency": "latency",
    "n_m": "pruning",
    "params_size_and_sparsity": "variants",
    "perplexity": "quality",
    "prune_global_magnitude_": "pruning",
    "read_study": "comparison",
    "select_prunable_linears": "pruning",
    "sensitivity": "quality",
    "sensitivity_correlation": "quality",
    "speaking": "language",
    "summarize": "findings",
    "sweep": "levels",
    "weight_patterns": "patterns",
    "write_csv": "comparison",
    "write_diff": "report",
    "write_figures": "figures",
    "write_notebook": "notebook",
    "write_report": "report",
    "write_thesis": "thesis",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
