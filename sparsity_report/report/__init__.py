"""A study on paper: one page, a PDF, parts of a thesis, a notebook.

``table_model`` says what a table is and how HTML and Typst write it, ``latex`` and ``markdown`` how these
do, ``plain_text`` how a terminal does, and ``column_heads`` what stands over a column; ``study_tables`` declares
every table of the product once,
``speed_tables`` those of what was timed, ``method_tables`` those that put policies and models side by side,
``policy_table`` the one of all prunings, ``difference_tables`` those of two studies, ``pair_tables`` those of
two checkpoints. ``page_figures`` makes charts part of a page, ``sparsity_figures`` gathers those of where zeros
are, ``histograms`` those of layers; ``report_values`` and ``pair_values`` gather what templates show,
``page``, ``pdf`` and ``thesis`` hand it to the files in ``templates/``, which ``templates`` finds
and renders; ``kit`` is what a kit for a thesis is made of, ``pair_thesis`` that of two checkpoints;
``notebook`` executes notebooks, ``exporter`` lets nbconvert write them as pages, ``notebook_cell``
shows a value in one, ``progress_bars`` that something goes on. ``copied_code`` is what one pastes elsewhere of a
study. The explorer writes its tables with ``table_model``, too.

Everything below may be imported. Figures come from ``study.facts`` and the study's frames; nothing
is derived here. A cell is turned into text once, by its ``Kind``: a new figure is a column in
``study_tables``, and page, PDF and thesis follow. A new sentence or head needs its line in
``templates/languages/fr.json``; what templates may use is listed in ``docs/templates.md``.
"""
