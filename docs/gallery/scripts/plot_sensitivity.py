"""
Sensitivity by block
====================

Increase of the loss if 50 % of one block is pruned and all others stay dense.
"""

from tempfile import TemporaryDirectory

import sparsity_report as sr

folder, weights = TemporaryDirectory(), sr.load()
sensitivity = sr.sensitivity(weights, 0.5, by="block")
study = sr.compare(sr.masked(sr.global_magnitude(weights, sparsity=0.5)))
study = study.with_measured(sensitivity=sensitivity)
files = {path.name: path for path in sr.write_figures(study, folder.name)}
picture = files["sensitivity.png"]
