"""
Histogram of magnitudes
=======================

Weights of one layer by magnitude, in ten equal intervals up to the largest.
"""

from itertools import pairwise

import numpy as np
import pandas as pd

import sparsity_report as sr

weights = sr.load()
layer = "model.decoder.layers.0.fc1"
magnitudes = sr.dense(weights).module().get_submodule(layer).weight.detach().abs().numpy()
counts, edges = np.histogram(magnitudes, bins=10)
names = [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]
frame = pd.DataFrame({"magnitude": names, "weights": counts})
picture = sr.bar_plot(frame, "magnitude", "weights", f"Magnitudes of {layer}")
