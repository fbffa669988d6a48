"""Comparison of two checkpoints, weight by weight.

- `roles`: roles of parameters, the axes of their rows and columns, and the matrices inside.
- `fingerprints`: hashes and projections of rows; `unit_matching`: matches of units by them.
- `alignment`: matches of all units and parameters of two models, as values; `align_units`
  finds those of units, `parameter_plan` those of parameters.
- `paired_reading`: the pass over both models; `value_loops`: its inner loops by NumPy,
  `compiled_loops`: those that numba compiles.
- `tally`: counts and sums of a comparison, and their cache entries.
- `removed`: removed parts of the base and the weights removed with each.

For maintainers: counts are taken from values and never derived from shares. The base, the model
before, is the frame of reference: removed parts have its names and numbers.
"""
