"""The explorer keeps the language in which it was made."""

import json
import re
from pathlib import Path

import pytest
from explored import chart_texts, html_texts, widget_texts
from measurements import latency, put_in, quality

import sparsity_report as sr
from sparsity_report.explorer.map_metrics import COUNTED as SHOWN

pytestmark = pytest.mark.slow

FRENCH = Path(__file__).parents[2] / "templates" / "languages" / "fr.json"
NUMBER = re.compile(
    r"[<>]?[\s\u202f]*\d[\d\u202f]*(,\d+)?(e-\d+)?(–\d+(,\d+)?(e-\d+)?)?[\s\u202f\u00a0]*"
    r"(%|×|[kMG]?o?|µs|ms|s)"
)


def alike(text):
    """A text with one no-break space: pages set the thin one before a unit, as in tables."""
    return text.replace("\u00a0", "\u202f")


class Reader:
    """A reader that knows the catalogue and the names of a study, and finds other texts."""

    def __init__(self, study):
        self.study = study
        catalogue = json.loads(FRENCH.read_text(encoding="utf-8"))
        self.templates = []
        for french in catalogue["sentences"].values():
            if re.fullmatch(r"\{[^}]*\}", french):
                continue
            parts = re.split(r"\{[^}]*\}", alike(french))
            self.templates.append(re.compile("(.+?)".join(map(re.escape, parts)), re.DOTALL))
        layers = study.layers
        names = {*layers["module_name"], *study.variants["variant"], *study.variants["model"]}
        names |= {
            *layers["dtype"],
            "float32",
            "explorer.layers()",
            "some.txt (sliding)",
            "sr.explore(study, weights=sr.load(…))",
        }
        names |= {part for name in layers["module_name"] for part in name.split(".")}
        names |= {" × ".join(map(str, shape)).replace(" ", "\u202f") for shape in layers["shape"]}
        with sr.speaking("fr"):
            names |= set(sr.summarize(study))
        self.names = {*map(alike, names), "–", "", "fc9"}
        self.read = {}  # as a text has many parts, and each is asked for often

    def knows(self, text):
        text = alike(text).strip(" \u202f")
        # Heads of tables begin with a capital.
        return self._knows(text) or self._knows(text[:1].lower() + text[1:])

    def _knows(self, text):
        if text not in self.read:
            self.read[text] = self._reads(text)
        return self.read[text]

    def _reads(self, text):
        if text in self.names or NUMBER.fullmatch(text):
            return True
        for between in (" · ", "\n"):
            if between in text:
                return all(map(self.knows, text.split(between)))
        for template in self.templates:
            match = template.fullmatch(text)
            if match and all(map(self.knows, match.groups())):
                return True
        listed = re.split(", | et ", text)
        return len(listed) > 1 and all(map(self.knows, listed))

    def foreign(self, texts):
        return sorted({text for text in texts if not self.knows(text)})


def everything(explorer):
    """Every text of an explorer as it stands."""
    return [*widget_texts(explorer), *chart_texts(explorer.chart)]


def states(explorer):
    """Put an explorer into each kind of state, and give its texts."""
    yield "as it opens", everything(explorer)
    for metric in SHOWN:
        explorer.metric = metric
        yield metric, everything(explorer)
    for variant in ("Dense", "CSR30", "Masked at level", "CSR at level"):
        explorer.variant = variant
        yield variant, everything(explorer)
    for curve in ("bytes", "quality"):
        explorer.curve = curve
        yield curve, everything(explorer)
    explorer.sparsity = 0.99
    for grouping in ("projection", "block"):
        explorer.grouping = grouping
        explorer.modules = "all"
        explorer.sort = "largest first"
        yield grouping, everything(explorer)
    explorer.selection = ["model.decoder.layers.0.fc1"]
    yield "selection", everything(explorer)
    explorer.selection = ()
    explorer.detail = "model.decoder.layers.0.final_layer_norm"
    yield "a norm", everything(explorer)
    explorer.search = "fc9"
    yield "search", everything(explorer)
    explorer.search = "fc1"
    yield "selected", everything(explorer)
    for policy in ("layerwise_magnitude", "N:4"):
        explorer.policy = policy
        yield policy, everything(explorer)
    explorer.policy = "global_magnitude"
    explorer.sparsity = 0.45
    explorer.add()
    yield "add", everything(explorer)


@pytest.fixture
def measured(demo_study):
    frame = latency()
    frame["name"] = frame["name"].replace("8 × 4", "512 × 128")
    return put_in(demo_study, latency=frame, quality=quality(names=("Dense", "Masked30", "CSR30")))


def test_every_text_is_french(measured):
    with sr.speaking("fr"):
        explorer = sr.explore(measured)
    explorer._shell.width = 900
    reader = Reader(explorer.study)
    for state, texts in states(explorer):
        if explorer.study is not reader.study:
            reader = Reader(explorer.study)
        assert reader.foreign(texts) == [], state
        assert not [t for t in texts if re.search(r"\d\.\d", t) and t not in reader.names]
    with sr.speaking("en"):
        still = explorer._repr_mimebundle_()["text/html"]
    assert reader.foreign(html_texts(still)) == []


def test_an_english_explorer_is_not(demo_study):
    explorer = sr.explore(demo_study)
    explorer._shell.width = 900
    with sr.speaking("fr"):
        explorer.sparsity = 0.5
        texts = everything(explorer)
    foreign = Reader(demo_study).foreign(texts)
    for english in (
        "Show",
        "Stored bytes as CSR",
        "Transformer block",
        "break-even at 50.3 %",
        "prunable",
    ):
        assert any(english in text for text in foreign), english
    assert not any("élag" in text for text in texts)


def test_what_cannot_be_set_is_said_in_french(demo_study):
    with sr.speaking("fr"):
        explorer = sr.explore(demo_study)
    for name, value, wording in [
        ("metric", "beauty", "metric est l’un de sparsity, .*, et non 'beauty'"),
        ("detail", "fc9", "detail est l’un de .*, …, et non 'fc9'"),
        ("selection", ["fc9"], "selection est l’un de .*, …, et non 'fc9'"),
        ("sparsity", 1.5, "sparsity va de 0 à 0,99, et non 1.5"),
        ("study", sr.compare(sr.dense(sr.load())), "on peut ajouter des variantes"),
    ]:
        with pytest.raises(sr.SparsityReportError, match=wording):
            setattr(explorer, name, value)


def test_keys_stay_english_while_labels_speak(demo_study):
    with sr.speaking("fr"):
        explorer = sr.explore(demo_study)
    assert (explorer.modules, explorer.grouping, explorer.sort) == (
        "prunable",
        "group",
        "model order",
    )
    explorer.variant, explorer.sort, explorer.metric = (
        "CSR at level",
        "largest first",
        "bytes_ratio",
    )
    assert explorer.variant == "CSR at level"
    menus = [widget for widget in explorer._controls.rows[0].children if hasattr(widget, "options")]
    assert ("CSR au niveau", "CSR at level") in menus[0].options
    # Longer labels are cut in the narrowest menu.
    assert max(len(text) for text, _ in menus[-1].options) <= 16
    assert [menu.value for menu in menus] == [
        "CSR at level", "bytes_ratio", "prunable", "group", "largest first",
    ]  # fmt: skip
