"""Reports: a page, a PDF, a thesis kit, a notebook, a notebook cell.

Sections are declared once and shown by every renderer: `sections` (blocks of a section),
`study_sections` with `study_maps` and `checkpoint_sections`. Renderers: `page` (HTML, PDF and
Markdown) with `pdf` (Typst), `markdown_report` and `templates` (Jinja2), whose files
`template_files` finds, and `thesis`. The folder ``tables`` declares the tables of studies, and
writes them as HTML, LaTeX and text.

`written_checkpoint` writes a variant as safetensors files. `hub_card` has its model card, and that
of a study.

In notebooks: `notebook`, which executes one, and `value_display`, the ``repr`` of a study and its
notebook cell.
"""
