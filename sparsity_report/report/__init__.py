"""A study on paper: one page, a PDF, parts of a thesis, a notebook.

``cells`` says what a table is and how HTML and Typst write it, ``latex`` and ``markdown`` how these
do, ``plain_text`` how a terminal does, and ``heads`` what stands over a column; ``tables`` declares
every table of the product once,
``speeds`` those of what was timed, ``grids`` those that put policies and models side by side,
``compared`` the one of all prunings, ``differences`` those of two studies, ``pair_tables`` those of
two checkpoints. ``figures`` makes charts part of a page, ``pictures`` gathers those of where zeros
are, ``histograms`` those of layers; ``values`` and ``pair_values`` gather what templates show,
``page``, ``pdf`` and ``thesis`` hand it to the files in ``templates/``, which ``templates`` finds
and renders; ``kit`` is what a kit for a thesis is made of, ``pair_thesis`` that of two checkpoints;
``notebook`` executes notebooks, ``exporter`` lets nbconvert write them as pages, ``in_a_cell``
shows a value in one, ``bars`` that something goes on. ``copied`` is what one pastes elsewhere of a
study. The explorer writes its tables with ``cells``, too.

Everything below may be imported. Figures come from ``study.facts`` and the study's frames; nothing
is derived here. A cell is turned into text once, by its ``Kind``: a new figure is a column in
``tables``, and page, PDF and thesis follow. A new sentence or head needs its line in
``templates/languages/fr.json``; what templates may use is listed in ``docs/templates.md``.
"""
