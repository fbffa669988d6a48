"""A model at every sparsity level: sweeps, policies, budgets, and quality against bytes.

Modules: `budget`, `levels`, `module_sums`, `policy_levels`, `sweep`, `tradeoff`.
"""
