"""Studies and pairs as JSON files: reading, writing, digests and consistency checks.

Modules: `agreement`, `digest`, `pair_file`, `recomputed`, `study_file`, `upgrade`.
"""
