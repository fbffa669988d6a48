"""Rules for a checkpoint with their violations.

- `wanted_bounds`: rules as values, read from text, with contradictions refused.
- `rule_files`: rules for the models of a repository in a YAML file.
- `counted_tensors`: tensors of a model with the counts of their values, also for ``count``.
- `model_check`: violations of rules by one model. `deployment_notes`: what no rule asks for.
"""
