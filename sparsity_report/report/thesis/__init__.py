"""The thesis kit: figures, tables and numbers for LaTeX.

Modules: `kit`, `pair_thesis`, `thesis`.
"""
