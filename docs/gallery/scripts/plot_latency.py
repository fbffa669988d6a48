"""
Speed-up with its control
=========================

Measured speed-up of CSR over dense, with the speed-up that performed FLOPs promise and the
control's noise.

The measurement ran while this page was built. If other programs used the processor, the chart says
that the speed-up is not reported.
"""

from tempfile import TemporaryDirectory

import sparsity_report as sr

folder, weights = TemporaryDirectory(), sr.load()
variants = [sr.dense(weights), sr.csr(sr.global_magnitude(weights, sparsity=0.9))]
clock = sr.Clock(cold=False, precision=0.05, budget=2)
latency = sr.latency(variants, tokens=[1, 16], crossovers=False, clock=clock)
study = sr.compare(*variants).with_measured(latency=latency)
files = {path.name: path for path in sr.write_figures(study, folder.name)}
picture = files["speed.png"]
