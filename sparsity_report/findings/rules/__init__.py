"""Rules for a checkpoint, their violations, and what its deployment meets.

- `wanted_bounds`: rules as values, read from text, with contradictions refused.
- `rule_files`: rules for the models of a repository in a YAML file.
- `prunable_tensors`: tensors of a model from its headers, with the direction of each matrix.
- `model_check`: violations of rules by one model. `deployment_notes`: what no rule asks for.
"""
