"""Reports: a page, a PDF, a thesis kit, a notebook, a notebook cell.

Sections are declared once and shown by every renderer: `sections` (blocks of a section),
`study_sections` with `study_cards`, `study_maps` and `level_slider_page` (slider and histograms of
a page); `pair_sections`; `difference_sections`. Renderers: `page` (HTML and PDF) with `pdf` (Typst)
and `templates` (Jinja2), and the folder ``thesis``. The folder ``tables`` declares every table and
writes it as HTML, Typst, LaTeX, Markdown and text.

In notebooks: `notebook` (executes one), `exporter` (for nbconvert), `notebook_cell` (a value in a
cell), `progress_bars`. `value_text` is the ``repr`` of values, `copied_code` a study as code,
`svg_map` a heat map without a script.
"""
