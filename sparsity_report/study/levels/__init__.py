"""A model at every level of sparsity.

- `levels`: the class `Levels`, all figures of a model at every level
- `sweep`: counts of every level from the weights, by policy
"""
