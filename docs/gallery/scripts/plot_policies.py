"""
Policies by block
=================

Share of zeros in each block for global and layerwise magnitude pruning at three sparsities.
"""

from tempfile import TemporaryDirectory

import sparsity_report as sr

folder, weights = TemporaryDirectory(), sr.load()
policies = (sr.global_magnitude, sr.layerwise_magnitude)
variants = [sr.masked(prune(weights, level)) for level in (0.3, 0.5, 0.7) for prune in policies]
study = sr.compare(sr.dense(weights), *variants)
files = {path.name: path for path in sr.write_figures(study, folder.name)}
picture = files["blocks.png"]
