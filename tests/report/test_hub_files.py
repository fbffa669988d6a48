"""Model cards as the Hub reads them."""

import time

import pytest
from helpers import Tiny
from huggingface_hub import ModelCard

import sparsity_report as sr
from sparsity_report.report.hub_card import front_matter

# A merge of each mapping doubles the keys of the one before.
ALIASES = "".join(f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}], k{n}: *a{n}}}\n" for n in range(40))


def test_the_card_has_metadata_verdict_totals_and_protocol(demo_study, tmp_path):
    path = sr.write_model_card(demo_study, tmp_path / "README.md", base_model="org/base")
    card = ModelCard.load(path)
    assert card.data.base_model == "org/base"
    assert card.data.tags == ["sparsity-report", "pruned"]
    assert card.data.library_name is None
    text = card.content.replace("\u202f", " ").replace("\\", "")
    assert f"# {sr.summarize(demo_study)[0]}".replace("\u202f", " ") in text
    total = demo_study.totals.iloc[0]["total"]
    assert f"| of | {total:,} |".replace(",", " ") in text
    assert demo_study.fingerprint in text
    assert "Appendix" not in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Results", "## Totals and groups", "## Method"]


def test_a_card_keeps_what_the_replaced_one_says(tmp_path):
    weights = sr.load()
    pruning = sr.global_magnitude(weights, 0.5)
    folder = sr.write_checkpoint(sr.masked(pruning), tmp_path / "m", base_model="org/base")
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("tags:", "license: mit\ntags:", 1))
    study = sr.compare(sr.dense(weights), sr.masked(pruning))
    data = ModelCard.load(sr.write_model_card(study, readme)).data
    assert (data.base_model, data.license, data.library_name) == ("org/base", "mit", "transformers")
    other = sr.write_model_card(study, folder / "card.md")
    assert ModelCard.load(other).data.base_model is None
    assert (
        ModelCard.load(sr.write_model_card(study, readme, base_model="b/c")).data.base_model
        == "b/c"
    )
    unpruned = sr.write_model_card(sr.compare(sr.dense(weights)), tmp_path / "card.md")
    assert ModelCard.load(unpruned).data.tags == ["sparsity-report"]
    with pytest.raises(sr.SparsityReportError, match=r"base_model='\./x' is not a Hub id"):
        sr.write_model_card(study, readme, base_model="./x")


def test_names_are_text_on_a_card(tmp_path):
    name = "a|b\n---\n# <script>x](y)"
    study = sr.compare(sr.dense(sr.load(Tiny(), name=name), name="<b>"))
    card = ModelCard.load(sr.write_model_card(study, tmp_path / "README.md"))
    assert card.data.to_dict() == {"tags": ["sparsity-report"]}
    assert "<script>" not in card.text.replace(r"\<", "")
    assert "<b>" not in card.text.replace(r"\<", "")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("license: 'mit' # text", "mit"),
        ("license: 1:1:1", "1:1:1"),
        (f"license: {'9' * 400}", "9" * 400),
        (f"x: {'1:' * 400_000}1\nlicense: mit", "mit"),
        ("a: &a [*a]\nmodel-index: *a\nlicense: mit", "mit"),
        ("a: &a {b: &b [*a, *a]}\nlicense: mit", "mit"),
        (f"a0: &a0 x\n{ALIASES}license: mit", "mit"),
        (f"license: {'[' * 499}", None),
        ("license: *a", None),
        ("license: [mit, apache-2.0]", None),
        ("license: apache\n  and more", None),
        ("license: >-\n  mit", None),
        ("license: mit\n" * 90_000, "mit"),
    ],
)
def test_metadata_of_a_foreign_card_is_read_as_text(tmp_path, lines, found):
    (tmp_path / "README.md").write_text(f"---\n{lines}\n---\n# x")
    began = time.process_time()
    metadata = front_matter(tmp_path)
    assert time.process_time() - began < 1
    assert metadata == ({"license": found} if found else {})
