"""Two checkpoints compared: the Pair value and its frames.

Modules: `checkpoints`, `pair`, `pair_cells`, `pair_frames`.
"""
