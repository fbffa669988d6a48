"""
Figure of a thesis
==================

Map of zeros at the width of a column, 8.5 cm, without a title, as vector graphics.
"""

from tempfile import TemporaryDirectory

import sparsity_report as sr

folder = TemporaryDirectory()
study = sr.compare(sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)))
kit = sr.write_thesis(study, folder.name, column_cm=8.5, font="serif")
files = {path.name: path for path in kit}
picture = files["map_masked50_column.svg"]
