"""Public values and functions that need several wings.

- `study`: the class ``Study``, ``compare``, ``read_study`` and ``summarize``
- `checkpoints`: ``compare_checkpoints``
- `tracker`: ``track`` and ``read_track``, the zeros of a model in training
- `explorer`: ``explore`` and the widget of a notebook
"""
