"""Figures derived from the frames of a study, each with one definition.

- `facts`: the figures of each variant that several readers show
- `strip`: the four figures at the head of a report
- `protocol_scores`: scores of one text by one protocol
- `paired_scores`: comparisons of scores by span, the best of them, and ranks of pruned parts
- `paired_facts`: comparisons of all scores of a study
- `zero_shot`: the seven zero-shot tasks
- `paired_tasks`: task scores of two variants, document by document
- `speedups`: speed-ups that exceed timing noise
- `heads_experts`: sparsity of attention heads and experts; zero rows, columns, heads and layers
- `layer_metrics`: figures of layers besides counts, and the least and most sparse layer
- `existing_zeros`: the pattern of the zeros of an already-pruned model
- `histograms`: histograms of the magnitudes of layers
- `tracker_metrics`: flat figures for experiment trackers
- `tradeoff`: quality against bytes of measured variants
- `expert_use`: use of experts by the router; experts that fit into one budget of bytes
- `runtime_frame`: runtimes that use, run as dense or refuse the weights of each variant
"""
