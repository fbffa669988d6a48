"""Functions that prune by each policy.

- `magnitude_policies`: global and layerwise magnitude, N:M patterns, and the zeros of a model.
- `random_policy`: random weights. `wanda_policy`: magnitude times input norm, and OWL's shares.
- `policy_registry`: the function of each policy, and the weights that it leaves.
"""
