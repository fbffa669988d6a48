"""Findings: statements worth making about a study, as sentences.

Entry points are ``study_findings(study)``, ``reproduction_findings(reproduction)``,
``verdict(study)`` and ``audit(study)``. Figures come from
``study.facts`` and the frames.

- ``study_findings``: findings about a study, and the conventions behind its numbers; from
  ``already_pruned`` (zeros of models as opened), ``storage_findings`` (bytes and layouts),
  ``rounding_findings`` (zeros of packed weights), ``speed_findings``, ``quality_findings``,
  ``runtime_findings``
- ``verdict``: costs and savings of one variant, the opening of a page
- ``audit``: weaknesses of a study, among them layers, heads and rows of zeros
- ``checkpoint_findings``: removed parts and the fate of zeros between two checkpoints
- ``reproduction_findings``: published perplexities that measured ones reproduce
- `rules`: rules for a checkpoint, their violations, and notes about its deployment
- ``model_counts``: counts of a model from its headers; ``model_claims``: differences from what it
  says of itself
- ``zero_parts``: layers, heads, rows and columns without a nonzero, of studies and checkpoints
- ``variant_names``: names of variants and of their bytes
- ``strip_text``, ``score_text``, ``checkpoint_labels``: texts of the figures at the head of a
  report, of measured scores, and of blocks and removed units of two checkpoints
"""
