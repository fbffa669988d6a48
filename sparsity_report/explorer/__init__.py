"""A study in a notebook: one linked view with a live slider.

`widget` is the explorer, its state as traits and what the browser tells it; `controls` its menus,
slider and buttons, `budget_tools` a budget, bounds and what is copied, `actions` what comes of these;
`control_state` is what these say, `history` what was shown before, `still_picture` the picture that a saved
notebook keeps. A state goes through `view` (which layers, where they stand, their values), then to
`scene` (the picture's look and data) and `picture` (the look as one chart of draw's marks, each in
its frame of `picture_layout`), and to `details` (cards and tables); `layer_histogram` knows one layer's histogram,
`map_metrics` what a map can show that is no count, `curves` the rows of the curve. `pair_explorer` is the view
of two checkpoints, `pair_scene` its picture. `anywidget_host` is what both are to a cell: a box of
ipywidgets, in marimo an anywidget. `page_widgets` has the widgets that come with scripts. Four scripts run
in the page: ``explorer.js`` draws and swaps data, ``shell.js`` measures and keeps keys inside,
``level.js`` is the slider, ``live.js`` draws in marimo what ipywidgets draw elsewhere, bound to the
same models: a new kind of control is one more element there, and a test names it.

May import ``report`` and all below it. Maintainers: there is one JupyterChart, for each stores
its whole state; as long as a ``Look`` stays the chart is not drawn anew, so whatever moves with
the slider is data, the line under a title included. Every way in from outside is decorated to
speak the language the explorer was made in; keys of traits stay English. Figures come from
``study.facts`` and the frames. Cards and captions keep their height, that nothing slides.
"""

import sparsity_report.draw  # noqa: F401, before altair, whose import it keeps short
