"""Counts of a model from one pass, and the prunings that follow from them.

- `counts`: the pass over a model, and the counts remembered beside it.
- `histogram`: nonzeros and magnitudes of a tensor, its mean and deviation, and distances between
  the levels of a packed one.
- `matrix_counts`: zeros of a tensor by row, column, group and block, and its special numbers.
- `workers`: threads or an executor that share the work; `progress`: its progress bars.
- `count_cache`: a folder of counts of earlier runs.
- `ranks`: exact thresholds and ties from histograms.
- `pruning_policies`: names and settings of pruning policies; `policies`: their functions;
  `imported_masks`: masks from files.
- `allocation`: weights to prune per layer.
- `pruning`: prunings as values, the model after a pruning; `cuts`: the
  pruned weights of each tensor; `in_place`: pruning of live layers.
- `kept_experts`: the experts that a model keeps, as values; `expert_lists`: formats of their lists.
- `checkpoint_layout`, `checkpoint_writer`: pruned and unpacked models written as safetensors.
- `n_m_patterns`: patterns such as 2:4, and compliance with them.

For maintainers: results are equal to the bit in whatever order work arrives, and ties are broken by
position. NaN is refused where ranks matter. A float32 bucket is 0.8 % wide, so that an exact
threshold needs `ranks.refine_level`.
"""
