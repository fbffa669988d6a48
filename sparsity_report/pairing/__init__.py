"""Comparison of two checkpoints, weight by weight.

- `roles`: roles of parameters and the axes of their rows and columns.
- `fingerprints`: hashes and projections of rows; `unit_matching`: matches of units by them.
- `alignment`: matches of all units of two models, as a value; `align_units`: finds them.
- `matches`: matches of parameters as values; `parameter_plan`: the plan of a comparison.
- `paired_reading`: the pass over both models; `value_loops`: its inner loop by NumPy,
  `compiled_loops`: the one that numba compiles.
- `tally`: counts and sums of a comparison, and their cache entries.
- `removed`: removed parts of the base and the weights removed with each.

For maintainers: counts are taken from values and never derived from shares. The base, the model
before, is the frame of reference: removed parts have its names and numbers.
"""
