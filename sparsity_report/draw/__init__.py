"""A study as pictures.

``theme`` says what all of them look like; ``marks`` draws the one heat map, bar chart, curve and
histogram, for page, paper, slider and explorer alike. ``charts``, ``measured_charts``, ``policy_overlay``,
``small_multiples`` (small maps beside each other), ``layer_strips``, ``gaussian_excess`` (zeros that a Gaussian would
not have), ``heads_experts_map`` (heads, experts), ``tradeoff_chart`` (quality against bytes), ``speed_charts`` and
``level_slider`` turn a study into charts made of those, and ``pair_charts`` two checkpoints (where they differ,
what is gone, how zeros overlap; ``strip_labels`` names its strips); ``paper_figures`` and ``export`` write files, ``png_size`` packs a PNG;
``fonts`` and ``vega`` bring what a browser needs; ``light_altair`` keeps altair's import short.

May import what lies under findings. Figures come from ``study.facts`` and the study's tables: a
chart derives none. Names of models and modules are rows or domains of a chart, never fields or
expressions of Vega, for those are programs. Every expression holds words in the language that is
spoken, so a chart is of one language. One pixel is one point in print.
"""

from sparsity_report.draw.light_altair import defer_grammar

defer_grammar()
