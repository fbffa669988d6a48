"""Charts of studies.

``theme`` holds colors, sizes, number formats and the font of pages. ``heat_map_svg`` draws the heat
map of all media, and ``heat_maps`` fills it with zeros per layer, head and expert. ``vega_lite``
holds the other charts, and ``marks`` their bars, curve, named lines and the heat map of an
explorer. Charts of a study: ``charts`` (bars of a frame, bytes against sparsity, the fate of a base
by block) and ``measured_charts`` (perplexity against sparsity, sensitivity, speed-ups).
``paper_figures`` and ``export`` write files.

A chart derives no figure: figures come from ``study.facts`` and the tables of a study. Names of
models and modules are rows or domains of a chart, never fields or expressions, because Vega
compiles those. One pixel is one point in print.
"""
