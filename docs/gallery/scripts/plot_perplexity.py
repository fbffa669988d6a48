"""
Perplexity with intervals
=========================

Perplexity of two policies against sparsity. Whiskers are 95 % intervals of the ratio to dense.
"""

from tempfile import TemporaryDirectory

import sparsity_report as sr

folder, weights = TemporaryDirectory(), sr.load()
policies = (sr.global_magnitude, sr.layerwise_magnitude)
variants = [sr.masked(prune(weights, level)) for level in (0.5, 0.7) for prune in policies]
variants = [sr.dense(weights), *variants]
study = sr.compare(*variants).with_measured(quality=sr.perplexity(variants))
files = {path.name: path for path in sr.write_figures(study, folder.name)}
picture = files["quality.png"]
