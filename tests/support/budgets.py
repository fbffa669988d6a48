"""Budgets that Python and the viewer read alike: quantity, most, and what a ratio is one of."""

BUDGETS = {
    "100 MB": ("stored_bytes", 1e8, None), "100mb": ("stored_bytes", 1e8, None),
    "≤ 1.5 GiB": ("stored_bytes", 1.5 * 2**30, None),
    "at most 60 bytes": ("stored_bytes", 60.0, None), "2 GFLOPs": ("flops_per_token", 2e9, None),
    "<= 2 MFLOPs per token": ("flops_per_token", 2e6, None), "60 %": ("stored_bytes", 0.6, ""),
    "60%": ("stored_bytes", 0.6, ""), "≤ 60\u202f%": ("stored_bytes", 0.6, ""),
    "0.6": ("stored_bytes", 0.6, ""), ".6": ("stored_bytes", 0.6, ""),
    "0.6 ×": ("stored_bytes", 0.6, ""), "1.2x": ("stored_bytes", 1.2, ""),
    "60 % bytes": ("stored_bytes", 0.6, ""), "0.6 bytes": ("stored_bytes", 0.6, ""),
    "60 % of dense": ("stored_bytes", 0.6, "dense"),
    "0.6 of the dense bytes": ("stored_bytes", 0.6, "dense"),
    "60 % of the file": ("stored_bytes", 0.6, "file"),
    "60 % of the bytes of the file": ("stored_bytes", 0.6, "file"),
    "0.5x FLOPs": ("flops_per_token", 0.5, ""), "0.5 FLOPs": ("flops_per_token", 0.5, ""),
    "40 % of the dense FLOPs": ("flops_per_token", 0.4, "dense"),
}  # fmt: skip
NO_BUDGETS = (
    *("", "100", "60", "MB", "%", "-3 MB", "nan MB", "1e9 B", "1,000 MB", "1.2.3 MB", "abc"),
    *("60 % of dense of the file", "60 % bytes FLOPs", "60 % FLOPs of the file", "60 of dense"),
    *("60 percents", "9" * 99),
)
