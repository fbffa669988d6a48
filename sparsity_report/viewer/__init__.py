"""The viewer: a study or a pair on one screen, in pages and notebooks, without a kernel.

- `payload`: a header and arrays as compressed bytes, which the script opens.
- `study_payload`: the counts, levels and texts of a study.
- `pair_payload`: the figures of a pair, as sums of its modules.
- `copied_code`: a study at a level as Python, JSON, a recipe or a command.
- `module`: the script and the style, joined from their source files.
- `embed`: the viewer as a fragment of HTML.
- `explorer`: the explorer of a study; `layer_values`, the values of its layers.
- `pair_explorer`: the explorer of a pair.
- `base_explorer`: the widget that explorers of studies and pairs share.

Source files of the script, each using those before it: ``numbers.js`` (text of numbers),
``data.js`` (the payload), ``figures.js`` (every figure that is shown), ``budget.js``, ``state.js``
(state and undo), ``pictures.js`` (shapes as SVG, PNG, PDF), ``map.js``, ``table.js``,
``details.js`` (the panel beside the map) and ``viewer.js`` (the screen, and its link to a kernel).
"""
