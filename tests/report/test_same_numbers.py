"""Widget, page, PDF, LaTeX and JSON of one study say the same sentences with the same numbers."""

import html
import json
import re

import pytest
from helpers import study_of
from measurements import latency, put_in, quality, sensitivity
from papers import text_of

import sparsity_report as sr


@pytest.fixture(scope="module")
def study(demo):
    return put_in(study_of(demo), latency=latency(), quality=quality(), sensitivity=sensitivity(5))


def bare(text):
    """Text without what only sets it: spaces, breaks, hyphens and typographic quotes."""
    return re.sub(r"[\s\u200b\u00ad-]", "", text.replace("’", "'").replace("−", ""))


def page(study, folder):
    text = sr.write_report(study, folder / "report.html").read_text(encoding="utf-8")
    body = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "", body))


def paper(study, folder):
    return text_of(sr.write_report(study, folder / "report.pdf"))


def latex(study, folder):
    sr.write_thesis(study, folder / "thesis")
    numbers, findings = (
        (folder / "thesis" / f"{name}.tex").read_text(encoding="utf-8")
        for name in ("numbers", "findings")
    )
    verdict = re.search(r"StudyVerdict\}\{(.*)\}\n", numbers)[1]
    return findings.replace("\\StudyVerdict", verdict).replace("\\", "")


def saved(study, folder):
    return json.loads(study.save(folder / "s.json").read_text(encoding="utf-8"))["findings"]


def widget(study, folder):  # noqa: ARG001 - as the others
    return sr.explore(study)._repr_mimebundle_()["text/plain"]


def numbers(text):
    return re.findall(r"\d+(?:[.,]\d+)*", text)


@pytest.mark.parametrize(
    "shown",
    [page, pytest.param(paper, marks=pytest.mark.tools), saved, widget],
    ids=lambda f: f.__name__,
)
def test_every_sentence_is_there(study, tmp_path, shown):
    found = shown(study, tmp_path)
    text = bare(" ".join(found) if isinstance(found, list) else found)
    sentences = sr.summarize(study)
    assert len(sentences) > 8
    for sentence in sentences:
        assert bare(sentence) in text, sentence


def test_latex_says_the_same_numbers(study, tmp_path):
    text = " ".join(numbers(latex(study, tmp_path)))
    for sentence in sr.summarize(study):
        # Names of modules are set with marks between their parts.
        own = numbers(re.sub(r"\w+(\.\w+){2,}", "", sentence))
        for number in own:
            assert number in text, (number, sentence)
