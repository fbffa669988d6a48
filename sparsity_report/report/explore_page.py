"""Page of ``sparsity-report explore``: the verdict on a study and its viewer, in one file."""

from markupsafe import Markup

from sparsity_report.findings.verdict import verdict
from sparsity_report.report.templates import environment, render
from sparsity_report.study.figures import StudyFigures
from sparsity_report.viewer.embed import digests, embed
from sparsity_report.viewer.study_payload import study_payload


def explorer_page(study: StudyFigures) -> tuple[str, str]:
    """Return the page of a study, and its content security policy."""
    shown = {
        "title": ", ".join(dict.fromkeys(study.variants["model"])),
        "verdict": verdict(study),
        "viewer": Markup(embed(study_payload(study))),
    }
    policy = (
        f"default-src 'none'; script-src {' '.join(digests())}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )
    return render(environment(), "explore.html.j2", shown, "render the explorer"), policy
