"""Measurements that run a model: perplexity, sensitivity, text, latency, calibration.

Scores:

- `texts`: strings, files, data sets and token ids to score.
- `protocols`: evaluation protocols of papers, as windows of tokens.
- `model_stage`: one model in memory that is pruned as each variant in turn.
- `perplexity`: likelihood, accuracy and KL divergence of windows, and the public measurement.
- `sensitivity`, `continuations`: the other public measurements, one frame each.
- `calibration`: norms of the inputs of each matrix; tokens, gates and outputs of each expert.
- `wanda`: pruning by these norms. `reap`: lists of experts by their use.

Training:

- `tracked_model`: zeros of a live model against a mask.

Times:

- `machine`: processor, caches and load.
- `clock`: interleaved timing with a duplicate kernel as control, and intervals of ratios.
- `timed_calls`: layers and models as calls, with weights in the cache or read from memory.
- `latency`: the public measurements, and the sparsity at which CSR overtakes dense.

Maintainers: time variants in turn, so that a drift of the machine affects all alike. Score a text
by one protocol, and store it in every row. Restore a model that is pruned for a measurement.
"""
