"""
Bytes and break-even of CSR
===========================

Bytes of the prunable weights in CSR, bitmask and dense layouts against sparsity, with break-evens.
"""

from tempfile import TemporaryDirectory

import sparsity_report as sr

folder = TemporaryDirectory()
study = sr.compare(sr.csr(sr.global_magnitude(sr.load(), sparsity=0.3)))
files = {path.name: path for path in sr.write_figures(study, folder.name)}
picture = files["csr_bytes.png"]
