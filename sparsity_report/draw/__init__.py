"""A study as pictures.

``look`` says what all of them look like; ``marks`` draws the one heat map, bar chart, curve and
histogram, for page, paper, slider and explorer alike. ``charts``, ``measured``, ``policies``,
``multiples`` (small maps beside each other), ``spread``, ``excess`` (zeros that a Gaussian would
not have), ``inside`` (heads, experts), ``tradeoff`` (quality against bytes), ``speed`` and
``slider`` turn a study into charts made of those, and ``pair`` two checkpoints (where they differ,
what is gone, how zeros overlap); ``paper`` and ``export`` write files, ``opaque`` packs a PNG;
``fonts`` and ``vega`` bring what a browser needs; ``deferred`` keeps altair's import short.

May import what lies under findings. Figures come from ``study.facts`` and the study's tables: a
chart derives none. Names of models and modules are rows or domains of a chart, never fields or
expressions of Vega, for those are programs. Every expression holds words in the language that is
spoken, so a chart is of one language. One pixel is one point in print.
"""

from sparsity_report.draw.deferred import defer_grammar

defer_grammar()
