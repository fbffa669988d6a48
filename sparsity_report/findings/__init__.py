"""A study in sentences, said once and shown by page, PDF, thesis, explorer and command line.

- ``summary``: what is worth knowing, most important first, and the conventions of the numbers.
- ``verdict``: one sentence for one variant, which pages begin with.
- ``budget``: what a budget of bytes, FLOPs or perplexity comes to.
- ``compared``: which policy is best at what, for ``summary``.
- ``measured``: what sensitivity and tasks come to, for ``summary``; ``quality``: perplexity,
  the distance from dense, and continuations.
- ``speed``: how fast variants ran, as far as it may be told, for ``summary``.
- ``audit``: what a careful reviewer would flag.
- ``dead``: what is zero throughout, for ``audit``.
- ``rounding``: whether rounding explains the zeros of packed weights, for ``summary``, ``audit``.
- ``published``: what others measured of kernels for sparse weights, in their words.
- ``difference``: what changed between two studies; ``moved``: which variant became which, the
  zeros of its layers, and what was measured alike.
- ``pair``: what was taken away between two checkpoints, and what became of the zeros.

Figures come from ``study.facts`` and the frames of a study; nothing is derived here that a table
or a chart shows, too. The study reaches up to ``audit`` and ``summary`` late, by named doors. A
sentence is one ``say``: glued from pieces it could not be translated.
"""
