"""Findings: statements worth making about a study, as sentences.

Entry points are ``study_findings(study)``, ``verdict(study)`` and ``audit(study)``. Figures come
from ``study.facts`` and the frames.

- ``study_findings``: findings about a study, and the conventions behind its numbers; from
  ``already_pruned`` (zeros by pruning before, or by rounding), ``storage_findings`` (bytes,
  layouts, runtimes), ``speed_findings``, ``quality_findings``
- ``first_screen``: the head of a report, with the next step and alerts from the audit
- ``verdict``: costs and savings of one variant, the opening of a page
- ``audit``: weaknesses of a study, among them layers, heads and rows of zeros
- ``checkpoint_findings``: removed parts and the fate of zeros between two checkpoints, and names of
  their blocks and removed units
- ``training_findings``: the fate of pruned weights over training
- ``wanted_bounds``: rules for checkpoints as values; ``model_check``: their violations;
  ``deployment_notes``: what no rule asks for
- ``model_counts``: counts of a model from its headers and values
- ``strip_text``: texts of the figures at the head of a report, and of measured scores
"""
