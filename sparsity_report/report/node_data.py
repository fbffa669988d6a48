"""Sparsity of modules as node data for Model Explorer, which colors the nodes of a graph by it."""

import json
import os
import re
from collections import Counter
from pathlib import Path

from sparsity_report.files.atomic import write_file
from sparsity_report.report.value_display import viridis
from sparsity_report.sparse.shares import zero_shares
from sparsity_report.study.comparison import Study
from sparsity_report.study.files.json_files import value_or_saved
from sparsity_report.words.sentences import say

# Colors from 0 to 100 %: each file has the same, whatever its values.
_STEPS = 20


def write_node_data(
    study: Study | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    variant: str | None = None,
) -> Path:
    """Write the sparsity of each module as node data for Google's Model Explorer.

    A value is zeros ÷ weights of a module's matrices. Model Explorer colors with it the nodes whose
    id is the name of the module, and the weights of graphs from ``torch.export``, whose ids are
    such as ``p_model_layers_0_mlp_up_proj_weight``. Modules with unknown zeros are left out.

    Parameters
    ----------
    study : Study or path-like
        From :func:`sparsity_report.compare`, or the path of a saved study.
    path : path-like
        The JSON file to write.
    variant : str, optional
        Name of a variant of the study; by default that of the report's maps.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    SparsityReportError
        The study has no such variant, or the file cannot be written.

    Examples
    --------
    >>> import json, tempfile
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.masked(sr.global_magnitude(sr.load(), sparsity=0.3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = json.loads(sr.write_node_data(study, f"{folder}/nodes.json").read_text())
    >>> round(data["results"]["model.decoder.layers.0.fc1"]["value"], 2)
    0.26
    """
    read: Study = value_or_saved("write_node_data", study, Study)
    variant = read.facts.headline if variant is None else variant
    rows = read.facts.layers(variant)
    rows = rows[(rows["weight_total"] > 0) & rows["weight_nonzero"].notna()]
    shares = zero_shares(rows["weight_total"], rows["weight_nonzero"])
    exported = Counter(map(_exported, read.facts.layers(variant)["module_name"]))
    results = {}
    for module, shape, share in zip(rows["module_name"], rows["shape"], shares, strict=True):
        results[module] = {"value": float(share)}
        # Stacked experts are several parameters, and equal ids get a number.
        if len(shape) == 2 and exported[_exported(module)] == 1:
            results.setdefault(_exported(module), {"value": float(share)})
    ends = [(step + 1) / _STEPS for step in range(_STEPS)]
    name = say("column.sparsity")
    data = {
        "name": f"{name}, {variant}",
        "results": results,
        # Shares have no sum, and their mean is not the share of the model.
        "hideAggregatedStats": ["sum", "avg"],
        "hideInChildrenStatsTable": True,
        "thresholds": [{"value": end, "bgColor": viridis(end - 0.5 / _STEPS)} for end in ends],
    }
    return write_file(Path(path), json.dumps(data, indent=1, allow_nan=False) + "\n")


def _exported(module: str) -> str:
    """Return the id of a module's weight in a graph of ``torch.export``."""
    return "p_" + re.sub(r"\W", "_", f"{module}.weight", flags=re.ASCII).lower()
