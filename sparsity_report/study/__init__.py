"""Studies: frozen values that hold tables, their sums and their files.

Modules:

- `variants`: models as they are, masked, or as CSR; what a study compares.
- `survival`: matched modules, removed parts, fate of zeros and changes of two checkpoints.
- `zero_history`: zeros of a model over training, and a study of both ends.
- `figures`: the tables of a study with the figures derived from them.
- `frames`: the tables of a study, which the figures in ``derived`` are computed from, and notes.
- `schema`: names, types and bounds of the columns of every table.
- `layers`: parameters, zeros, bytes and FLOPs of each module, and their sums.
- `patterns`: positions of zeros in each matrix.
- `levels`: all figures of a model at every level of sparsity.
- `sweep`: counts of every level from the weights, by policy.
- `storage_layouts`: bytes in every storage layout.
- `budget`: the level that keeps a budget of bytes or FLOPs.
- `provenance`: command, date, library versions and platform.
- `policy_names`: names of pruning policies, and each distinct pruning.
- `losses`: losses kept by span of scored tokens.
- `block_bootstrap`: intervals of means over spans, and Holm's correction.
- `heatmap_grid`: cells of the heat map.
- `rounded_zeros`: zeros that rounding explains, and models pruned before they were opened.
- `published_scores`: perplexities of papers beside measured ones.
- `harness_results`: scores and outcomes per document from files of lm-evaluation-harness.

Folders: ``derived`` (figures computed from tables), ``files`` (JSON and CSV).

To add a column, declare it in `schema` (its title is in the catalogue), fill it where its table is
made, and write the JSON Schemas again by ``python tests/support/json_schema.py``.
"""
