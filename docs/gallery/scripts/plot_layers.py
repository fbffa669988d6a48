"""
Sparsity by layer
=================

Share of zeros in each prunable layer of the first block, as bars.
"""

import sparsity_report as sr

weights = sr.load()
study = sr.compare(sr.masked(sr.global_magnitude(weights, sparsity=0.3)))
layers = study.layers[study.layers["prunable"] & (study.layers["block"] == 0)]
layers = layers.assign(layer=layers["module_name"].str.rpartition(".")[2])
picture = sr.bar_plot(layers, "layer", "sparsity", "Zeros in the first block")
