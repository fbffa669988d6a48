"""
Report as PDF
=============

First page of a typeset report, with the sentences and numbers of the page.

The picture is of SmolLM2-135M at 50 %. The script writes the same report for the demo.

.. image:: /_static/pdf.png
    :alt: First page of the PDF: verdict, figures and table of contents
"""

from tempfile import TemporaryDirectory

import sparsity_report as sr

folder = TemporaryDirectory()
pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
picture = sr.write_report(study, f"{folder.name}/report.pdf")
# sphinx_gallery_thumbnail_path = '_static/pdf.png'
