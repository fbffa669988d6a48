"""Everything is said in every language that is shipped, with the same numbers."""

import ast
import json
import re
import string
from pathlib import Path

import pytest
from jinja2 import nodes

import sparsity_report as sr
from sparsity_report.phrases import phrase
from sparsity_report.report.templates import environment
from sparsity_report.report.thesis import latex_templates
from sparsity_report.sparse.runtime_support import LAYOUTS, RUNTIMES
from sparsity_report.study.expert_use import FIGURES
from sparsity_report.study.schema import COLUMNS
from sparsity_report.viewer import module
from sparsity_report.words.languages import speaking, spoken
from sparsity_report.words.sentences import say

ROOT = Path(__file__).parents[2]
# Keys of these end in a raw value, such as the name of a column or of a layout.
FAMILIES = (
    "column",
    "group",
    "layout",
    "method",
    "kind",
    "alignment",
    "structure",
    "cache",
    "strip",
    "speed_reason",
    "term",
    "checklist",
    "paired",
    "unpaired",
    "runtime_layout",
    "runtime_verdict",
    "runtime_note",
)
CATALOGUES = sorted((ROOT / "templates" / "languages").glob("*.json"))


def constants():
    """Yield string constants of the package, and keys that its data and templates name."""
    for path in (ROOT / "sparsity_report").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    yield from (f"runtime_layout.{layout}" for layout in LAYOUTS)
    for figure in FIGURES:
        yield from (f"chart.{figure}_title", f"label.{figure}", f"caption.{figure}")
    for runtime in RUNTIMES.values():
        yield from (f"runtime_note.{cell.note}" for cell in runtime.cells.values())
    yield from template_keys()


def template_keys():
    made = environment()
    for path in (ROOT / "templates").rglob("*.j2"):
        reader = latex_templates(made) if path.parent.name == "thesis" else made
        parsed = reader.parse(path.read_text(encoding="utf-8"))
        for call in parsed.find_all(nodes.Call):
            if getattr(call.node, "name", "") == "_" and isinstance(call.args[0], nodes.Const):
                yield call.args[0].value


def said_keys():
    """Yield the keys that calls of `say` and `phrase` name."""
    for path in (ROOT / "sparsity_report").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said = isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"say", "phrase"}
            if said and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value
    yield from template_keys()


def script_texts():
    """Yield patterns of the keys that the viewer's script names, with ``.*`` for a value."""
    for text in re.findall(r'"([a-z_]+)"|`([a-z_]*\$\{\w[\w.]*\}[a-z_]*)`', module.script()):
        yield re.sub(r"\$\{.*?\}", ".*", "".join(text))


def catalogue(path):
    return json.loads(path.read_text(encoding="utf-8"))


def placeholders(text):
    """Return names and formats of values; words of a language and repeated names are its own."""
    parsed = string.Formatter().parse(text)
    return {
        (name, re.sub("^plural .*", "plural", spec))
        for _, name, spec, _ in parsed
        if name and not spec.startswith("choose")
    }


ENGLISH = catalogue(ROOT / "templates" / "languages" / "en.json")["sentences"]


def test_every_key_has_a_text_and_every_text_a_use():
    assert len(ENGLISH) > 800
    assert set(said_keys()) - set(ENGLISH) == set(), "keys without a text"
    used = set(constants())
    named = {f"{family}.{value}" for family in FAMILIES for value in (*used, *COLUMNS)}
    scripted = re.compile("|".join(f"viewer\\.{text}" for text in script_texts()))
    unused = set(ENGLISH) - used - named
    assert {key for key in unused if not scripted.fullmatch(key)} == set(), (
        "texts that nothing uses"
    )


def test_every_key_of_the_script_has_a_text():
    said = re.findall(r'[.\s(]say\("(\w+)"', module.script())
    assert len(said) > 50
    assert {f"viewer.{key}" for key in said} - set(ENGLISH) == set()


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_every_sentence_is_translated(path):
    sentences = catalogue(path)["sentences"]
    plain = {
        key
        for key, text in ENGLISH.items()
        if re.fullmatch(r"{\w+(:(?!plural|choose)([^{}]|{\w+})*)?}", text)
    }
    assert set(ENGLISH) - plain - set(sentences) == set(), "not translated"
    assert set(sentences) - set(ENGLISH) == set(), "translated but never said"
    assert list(sentences) == sorted(sentences)


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_translations_have_the_same_placeholders(path):
    for key, text in catalogue(path)["sentences"].items():
        assert placeholders(ENGLISH[key]) == placeholders(text), key


@pytest.mark.parametrize("module", ["study_findings", "storage_findings", "audit"])
def test_sentences_are_never_glued_from_pieces(module):
    """An f-string cannot be translated: values go into `phrase`."""
    path = ROOT / "sparsity_report" / "findings" / f"{module}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    glued = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) and len(n.values) > 2]
    assert not glued, f"{module}.py, lines {glued}: use phrase(key, value=…)"


def numbers(text, thousands):
    """The numbers of a text, however a language writes them."""
    text = re.sub(rf"(?<=\d){thousands}(?=\d{{3}}(?!\d))", "", text)
    return re.findall(r"\d+(?:[.,]\d+)?", text.replace(",", "."))


def test_french_says_the_same_numbers(demo):
    pruning = sr.global_magnitude(demo, 0.3)
    more = sr.global_magnitude(demo, 0.97)
    study = sr.compare(
        sr.dense(demo), sr.masked(pruning), sr.csr(pruning), sr.csr(more),
        patterns=True, context=128,
    )  # fmt: skip
    english = sr.summarize(study) + study.audit
    with speaking("fr"):
        french = sr.summarize(study) + study.audit
    assert len(english) == len(french) > 6
    for one, other in zip(english, french, strict=True):
        assert one != other
        assert sorted(numbers(one, "\u202f")) == sorted(numbers(other, "\u202f"))
    assert any("élagables" in sentence for sentence in french)
    assert spoken().code == "en"


def test_french_typography():
    with speaking("fr"):
        assert say("chart.study_level_alt", share=0.3, ratio=2) == (
            "Cette étude\u00a0: 30,0\u00a0%\u00a0: CSR 2,00\u00a0× dense."
        )
        assert say("format.count_more", count=1234567) == "1\u202f234\u202f567 autres"
    for path in CATALOGUES:
        if path.stem == "fr":
            for said in json.loads(path.read_text(encoding="utf-8"))["sentences"].values():
                assert not re.search(r" [;:!?»](?!\w)|« |'", said), said


def test_notes_are_said_in_the_language_in_use():
    note = phrase("note.gguf_blocks", kinds=["Q4_0", "Q6_K"])
    assert str(note).startswith("quantized blocks (Q4_0 and Q6_K) are counted")
    with speaking("fr"):
        assert str(note).startswith("les blocs quantifiés (Q4_0 et Q6_K) sont")


def test_values_are_never_templates():
    assert say("audit.excluded_share", reason="{count} {0.__class__}", count=10) == (
        "10 in {count} {0.__class__}"
    )


def test_a_users_catalogue(tmp_path):
    (tmp_path / "languages").mkdir()
    german = {
        "decimal": ",",
        "conjunction": "und",
        "sentences": {"format.count_more": "{count} mehr"},
    }
    (tmp_path / "languages" / "de.json").write_text(json.dumps(german), encoding="utf-8")
    french = {"sentences": {"format.count_more": "encore {count:,}"}}
    (tmp_path / "languages" / "fr.json").write_text(json.dumps(french), encoding="utf-8")
    with speaking("de", tmp_path):
        assert say("format.count_more", count=2) == "2 mehr"
        assert say("format.token_count", tokens=2) == "2 tokens"
    with speaking("fr", tmp_path):
        assert say("format.count_more", count=2) == "encore 2"
        assert say("format.token_count", tokens=2) == "2 jetons"


@pytest.mark.parametrize("language", ["xx", "../fr", "", "fr.json", "/etc/passwd"])
def test_an_unknown_language_is_refused(language):
    refused = pytest.raises(sr.SparsityReportError, match=r"no language.* there are en, fr")
    with refused, speaking(language):
        pass


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"decimal": 3, "what": 1}', '{"sentences": "x"}', '{"sentences": 3}']
)
def test_a_broken_catalogue_is_refused(tmp_path, text):
    (tmp_path / "languages").mkdir()
    (tmp_path / "languages" / "fr.json").write_text(text)
    refused = pytest.raises(sr.SparsityReportError, match=r"fr\.json is not a catalogue")
    with refused, speaking("fr", tmp_path):
        pass


def test_a_translation_that_does_not_fit_is_refused(tmp_path):
    (tmp_path / "languages").mkdir()
    wrong = {
        "sentences": {"format.count_more": "{number} mehr"},
    }
    (tmp_path / "languages" / "de.json").write_text(json.dumps(wrong))
    with (
        speaking("de", tmp_path),
        pytest.raises(sr.SparsityReportError, match=r"de\.json: the text of .* does not fit"),
    ):
        say("format.count_more", count=2)
