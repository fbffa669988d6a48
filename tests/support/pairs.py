"""Two checkpoints that differ a little in everything, and rows of removed parts."""

from dataclasses import replace

import pandas as pd

import sparsity_report as sr

#: The module that is gone.
LOST = "model.decoder.layers.2.fc1"


def gone(kind, module, index, among, block, certainty=1.0, weights=100):
    """A row of ``study.removed``."""
    return {
        "kind": kind, "module": module, "index": index, "among": among, "block": block,
        "certainty": certainty, "weights": weights, "parameters": weights + 1,
        "bytes": 4 * weights, "flops_per_token": 2 * weights,
    }  # fmt: skip


def removed_like(pair, rows):
    """Rows of what is gone as the pair has them."""
    frame = pd.DataFrame(rows, columns=list(pair.removed.columns))
    return frame.astype(pair.removed.dtypes.to_dict())


def two_policies(demo, rows):
    """Two policies of one model; a module and what the rows say are gone."""
    found = sr.compare_checkpoints(sr.global_magnitude(demo, 0.5), sr.n_m(demo, 2, 4))
    matches = found.matches.copy()
    lost = matches.index[matches["module_name"] == LOST][0]
    none = ["weight_after", "zeros_after", "compared", "kept", "revived", "new", "changed"]
    matches.loc[lost, none] = 0
    matches.loc[lost, ["iou", "relative_change", "norm", "correlation"]] = None
    matches.loc[lost, ["after_name", "untouched", "alignment"]] = [None, False, "removed"]
    return replace(found, matches=matches, removed=removed_like(found, rows))


def sides(study):
    """The layers of both models."""
    return [study.facts.layers(name) for name in ("Before", "After")]


def figures(study):
    """The sizes of both models as a whole, by figure."""
    changes = study.changes
    return changes[changes["group"].isna()].set_index("figure")
