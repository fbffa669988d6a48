"""
Study in a notebook cell
========================

Verdict, map and totals of a study, as a notebook cell shows them without a script.
"""

import sparsity_report as sr

weights = sr.load()
pruning = sr.global_magnitude(weights, sparsity=0.3)
study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
picture = study
