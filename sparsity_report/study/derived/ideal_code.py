"""Bits per weight of an ideal code, from the table ``entropy`` of a study."""

import pandas as pd

from sparsity_report.counting.entropy import CodeBits


def bits_per_prunable_weight(entropy: pd.DataFrame | None, variant: str) -> dict[str, float] | None:
    """Return the bits per prunable weight of an ideal code, by part and in all (``ideal_bits``).

    None if a part is unknown, see :mod:`sparsity_report.counting.entropy`.
    """
    if entropy is None:
        return None
    layers = entropy[entropy["variant"] == variant]
    sums = layers[["weight_total", *CodeBits._fields]].sum(skipna=False)
    if sums.isna().any() or not sums["weight_total"]:
        return None
    bits = {key: float(sums[key] / sums["weight_total"]) for key in CodeBits._fields}
    return bits | {"ideal_bits": sum(bits.values())}
