"""Two checkpoints compared weight by weight.

Modules:

- `checkpoints`: opening and comparing two checkpoints, ``compare_checkpoints``.
- `pair`: the comparison as one frozen value.
- `pair_frames`: the tables of a pair.
- `pair_cells`: differences as numbers for maps and strips.
"""
