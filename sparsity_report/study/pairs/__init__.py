"""Tables of a study of two checkpoints.

Modules:

- `match_frames`: matched modules and removed parts.
- `removed_strips`: shares by block, and strips of removed parts.
"""
