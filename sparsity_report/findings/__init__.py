"""Findings: statements worth making about a study, a pair or a difference, as phrases.

Findings hold raw values; ``words`` renders them. Entry points are ``study_findings(study)``,
``pair_findings(pair)``, ``difference_findings(difference)``, ``distance_findings(distance)``,
``reproduction_findings(reproduction)``, ``verdict(study)`` and ``audit(study)``. Figures come from
``study.facts`` and the frames.

- ``study_findings``: findings about a study, and the conventions behind its numbers; from
  ``already_pruned`` (zeros of models as opened), ``storage_findings`` (bytes and layouts),
  ``rounding_findings`` (zeros of packed weights), ``speed_findings``, ``quality_findings``,
  ``runtime_findings``
- ``verdict``: costs and savings of one variant, the opening of a page
- ``audit``: weaknesses of a study, among them layers, heads and rows of zeros
- ``pair_findings``: removed parts and the fate of zeros between two checkpoints
- ``difference``: the difference of two studies as data: facts, zeros of layers, measurements
- ``difference_findings``: findings about that difference
- ``distance_findings``: divergence and agreement of the predictions of two models
- ``reproduction_findings``: published perplexities that measured ones reproduce
- `rules`: rules for a checkpoint, their violations, and notes about its deployment; questions of a
  reviewer, and the answers that a study holds
- ``model_counts``: counts of a model from its headers; ``model_claims``: differences from what it
  says of itself; ``model_memory``: bytes to serve it
- ``zero_parts``: layers, heads, rows and columns without a nonzero, of studies and checkpoints
- ``variant_names``: names of variants and of their bytes
"""
