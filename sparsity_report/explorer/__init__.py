"""The explorer: a study or a pair as one linked view in a notebook.

``box_explorer`` holds the widget that both explorers share, with scripts in the page, and
``still_picture`` the picture that a saved notebook keeps. The explorer of a study is
``widget``, with ``controls``, ``actions``, ``control_state`` and ``history``. A state goes through
``view`` (layers in view and their values) to ``scene`` (look and data), ``picture`` and
``picture_layout`` (the chart and the frames of its parts), ``curves`` (rows of the curve) and
``details`` (cards and tables). ``map_metrics`` holds the metrics of a map that are not counts,
``layer_histogram`` the magnitudes of one layer.

``explorer.js`` draws and swaps data, ``shell.js`` measures the page and handles keys, ``level.js``
is the slider, and ``live.js`` draws in marimo the widgets that ipywidgets draws in other notebooks:
a new kind of control needs an element there. There is one chart, because each one stores its whole
state. The chart is compiled again only for a new ``Look``, so everything that follows the slider is
data. Every call from outside uses the language in which the explorer was made. Keys of traits are
English. Cards and captions keep their height.
"""
