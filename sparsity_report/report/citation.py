"""The BibTeX entry by which a page, a PDF and a thesis kit cite their numbers."""

import sparsity_report
from sparsity_report.report.tables.latex import tex
from sparsity_report.study.comparison import Study
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.words.pair_labels import both
from sparsity_report.words.sentences import say

# Year of this version.
_YEAR = 2026


def bibtex(value: Study | Pair) -> list[str]:
    """Return the lines of an entry for a study with its fingerprints, or a pair with its models."""
    if isinstance(value, Pair):
        note = say("cite.checkpoints_compared", models=both(value))
    else:
        note = say("cite.fingerprints", study=value.fingerprint, weights=weights(value))
    title = "what pruning does to a {Transformer} as {Dense}, {Masked} and {CSR}"
    return [
        "@misc{sparsity-report,",
        "  author       = {{The sparsity-report developers}},",
        f"  title        = {{sparsity-report: {title}}},",
        f"  howpublished = {{Python package, version {sparsity_report.__version__}}},",
        f"  year         = {{{_YEAR}}},",
        f"  note         = {{{tex(note)}}}",
        "}",
    ]


def weights(study: Study) -> str:
    """Return the fingerprints of the weights of a study."""
    return ", ".join(study.variants["fingerprint"].unique())
