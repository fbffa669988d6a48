"""The thesis kit: figures, tables and numbers for LaTeX.

Modules: `numbers` (LaTeX commands of numbers), `thesis` (the writer).
"""
