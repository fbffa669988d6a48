"""Figures derived from the frames of a study, each with one definition.

- `facts`: the figures of each variant that several readers show
- `strip`: the four figures at the head of a report
- `protocol_scores`: scores of one text by one protocol
- `paired_scores`: comparisons of all scores by span, the best of them, and ranks of pruned parts
- `zero_shot`: the seven zero-shot tasks
- `paired_tasks`: task scores of two variants, document by document
- `speedups`: speed-ups that exceed timing noise
- `heads_experts`: sparsity of attention heads and experts; zero rows, columns, heads and layers;
  use of experts by the router
- `layer_metrics`: figures of layers besides counts, their magnitudes, the least and most sparse
- `existing_zeros`: the pattern of the zeros of an already-pruned model
- `tracker_metrics`: flat figures for experiment trackers
- `zero_losses`: shares of zeros that were lost by then, by group, module and block
- `removed_strips`: shares of a base by block, and strips of removed parts
"""
