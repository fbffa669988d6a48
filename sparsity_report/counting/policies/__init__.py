"""Pruning policies: one class each, with the function that prunes by it.

- `magnitude_policies`: global and layerwise magnitude, N:M patterns, and the zeros of a model.
- `random_policy`: random weights. `wanda_policy`: magnitude times input norm, and OWL's shares.
- `policy_registry`: all policies, and those of a name in a study or on the command line.
"""
