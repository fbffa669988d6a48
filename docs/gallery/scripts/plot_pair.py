"""
Map of two checkpoints
======================

Share of each matrix that became zero between the demo and the demo pruned to 50 %.
"""

import sparsity_report as sr

weights = sr.load()
study = sr.compare_checkpoints(weights, sr.global_magnitude(weights, sparsity=0.5))
picture = sr.explore(study).chart
