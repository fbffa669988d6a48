"""Count once, derive everything: histograms of magnitudes, and the prunings that follow from them.

`counts` makes the one pass over a model, with `workers` (threads or any executor) and `count_cache` (on
disk, in `disk_cache` that prove themselves), and remembers it beside the model, which stays as it was.
`histogram` counts a tensor, with the `quantization_steps` of a packed one, `ranks` finds exact thresholds from
histograms, `policies` decide what goes, by `allocation` how much of each layer, within `bounds` how
much at most, by `random_pruning` or by magnitude, `activation_scores` with norms of inputs or by masks that are
`imported_masks`, `pruning` are those decisions as values, with `frozen_arrays` arrays, and apply them, `in_place`
prunes live layers, `pruned_model` is the model that a pruning leaves, `moments` are deviations, `n_m_patterns` are patterns such as 2:4, `progress`
show what takes long.

May import ``weights``, ``sparse``, ``files`` and ``errors``. Maintainers: results must be the same
to the bit whatever the order of arrival, and ties go by position; NaN is refused where ranks
matter; a float32 bucket is 0.8 % wide, so exactness needs the refining look of ``ranks.settle``.
"""
