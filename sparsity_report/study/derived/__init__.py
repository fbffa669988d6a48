"""Figures derived from the frames of a study, each with one definition.

Modules: `cards`, `facts`, `heads_experts`, `heatmap_grid`, `histograms`, `layer_metrics`,
`layer_spread`, `perplexity`, `policy_comparison`, `pruning_methods`, `rounded_zeros`, `speedups`,
`zero_rows`, `zero_shot`.
"""
