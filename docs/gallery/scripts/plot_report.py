"""
Report page
===========

First screen of a report: its verdict, quality, size, FLOPs and speed, and the map of zeros.

The picture is of SmolLM2-135M at 50 %. The script writes the same page for the demo.

.. image:: /_static/report-light.png
    :alt: First screen of the report: verdict, four figures and the map of zeros
"""

from tempfile import TemporaryDirectory

import sparsity_report as sr

folder = TemporaryDirectory()
pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
picture = sr.write_report(study, f"{folder.name}/report.html")
# sphinx_gallery_thumbnail_path = '_static/report-light.png'
