"""
Map of zeros
============

Share of zeros in each matrix of each block, at 50 % sparsity with one threshold for all.
"""

import sparsity_report as sr

weights = sr.load()
study = sr.compare(sr.masked(sr.global_magnitude(weights, sparsity=0.5)))
picture = sr.explore(study).chart
