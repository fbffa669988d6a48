"""The viewer: a study on one screen, in pages and notebooks, without a kernel.

- `payload`: a header and arrays as compressed bytes, which the script opens.
- `study_payload`: the counts, levels and texts of a study, or the matches of two checkpoints.
- `viewer_metrics`: the metrics of the map and the table.
- `measured_scores`: the measured scores of variants and of levels.
- `copied_code`: a study at a level as Python and as a command.
- `embed`: the bundled scripts, the style, and the viewer as a fragment of HTML.
- `view_state`: the state of an explorer, and the layers in view.

``api.explorer`` is the widget of a notebook.

The JavaScript files beside these modules are the sources of the scripts in ``bundle/``, which
``npm run build`` writes:

- ``viewer.js``: the screen, which composes ``controls.js``, ``map.js``, ``panel.js`` (with
  ``details.js``), ``table.js``, ``tools.js`` (with ``copied_code.js``) and ``keyboard.js``.
- ``figures.js`` computes every figure that is shown, ``budget.js`` solves budgets, and
  ``state.js`` holds the state with its undo.
- ``data.js`` opens the payload, ``types.d.ts`` describes it and the state.
- ``kernel.js`` is the widget: it shares the state with the kernel.
- ``numbers.js``, ``pictures.js`` and ``elements.js`` write numbers, draw shapes and make elements.
- ``page/`` is the script of report pages, with ``address.js``; ``fragment.js`` opens viewers.
"""
