"""A study in sentences, said once and shown by page, PDF, thesis, explorer and command line.

- ``summary``: what is worth knowing, most important first, and the conventions of the numbers.
- ``verdict``: one sentence for one variant, which pages begin with.
- ``budget_findings``: what a budget of bytes, FLOPs or perplexity comes to.
- ``policy_findings``: which policy is best at what, for ``summary``.
- ``task_findings``: what sensitivity and tasks come to, for ``summary``; ``quality_findings``: perplexity,
  the distance from dense, and continuations.
- ``speed_findings``: how fast variants ran, as far as it may be told, for ``summary``.
- ``audit``: what a careful reviewer would flag.
- ``zero_findings``: what is zero throughout, for ``audit``.
- ``rounding_findings``: whether rounding explains the zeros of packed weights, for ``summary``, ``audit``.
- ``published_kernels``: what others measured of kernels for sparse weights, in their words.
- ``difference``: what changed between two studies; ``layer_changes``: which variant became which, the
  zeros of its layers, and what was measured alike.
- ``pair_findings``: what was taken away between two checkpoints, and what became of the zeros.

Figures come from ``study.facts`` and the frames of a study; nothing is derived here that a table
or a chart shows, too. The study reaches up to ``audit`` and ``summary`` late, by named doors. A
sentence is one ``say``: glued from pieces it could not be translated.
"""
