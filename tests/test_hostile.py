"""Names that try to be more than text: in every output they are names, and can be read."""

import ast
import csv
import fcntl
import html
import json
import os
import pty
import re
import shutil
import struct
import sys
import termios
import threading
import unicodedata
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from types import SimpleNamespace
from unittest import mock

import hostile
import mistune
import nbformat
import pandas as pd
import pytest
import tqdm.auto
from helpers import command
from hostile import HALF, NAMES, TEXTS, UNSEEN
from torch import nn

import sparsity_report as sr
from sparsity_report import cli
from sparsity_report.cli import terminal as terminal_of
from sparsity_report.counting import progress
from sparsity_report.errors import legible, printable, writable
from sparsity_report.report.markdown_report import to_markdown
from sparsity_report.report.notebook import _set_parameters, as_html
from sparsity_report.report.page import write_explorer
from sparsity_report.report.tables.table_model import table_of
from sparsity_report.report.templates import environment
from sparsity_report.study.files.csv_files import variant_stems
from sparsity_report.study.schema import COLUMNS, Column
from sparsity_report.words.value_formats import name_format

READABLE = ("hebrew", "arabic", "persian", "hindi", "chinese", "emoji", "composed", "decomposed")
RAW = {"script", "style"}
FEW = ("--write", "csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def study(folder):
    return hostile.study(folder)


@pytest.fixture(scope="module")
def saved(study, folder):
    """A file that somebody else has written, with texts where this program has none."""
    return hostile.edited(study, folder / "study.json")


@pytest.fixture(scope="module")
def page(saved, folder):
    return Page(sr.write_report(sr.read_study(saved), folder / "report.html"))


class Page(HTMLParser):
    """Elements with their attributes, the text of each that is one, and what scripts hold."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.inside = [("", {})], [""]
        self.texts, self.scripts = [], []
        self.feed(path.read_bytes().decode().replace("<wbr>", ""))  # names may break there

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while len(self.inside) > 1 and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        kept = self.scripts if self.inside[-1] in RAW else self.texts
        kept.append((self.elements[-1], data))


@contextmanager
def terminal():
    """A terminal of 200 columns as standard output and error; what is written comes in parts."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 200, 0, 0))
    parts = []

    def read():
        try:
            while part := os.read(ours, 4096):
                parts.append(part)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with (
        os.fdopen(theirs, "w", encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(out),
    ):  # fmt: skip
        yield parts
    reader.join()
    os.close(ours)


def on_terminal(*arguments):
    """What the command line writes to a terminal, and its exit code."""
    line = mock.patch.object(sys, "argv", ["sparsity-report", *map(str, arguments)])
    with terminal() as parts, line, pytest.raises(SystemExit) as left:
        cli.main()
    return b"".join(parts).decode(), left.value.code or 0


def unseen(text):
    """What a reader would not see, but for what a terminal's line ends and a bar are made of."""
    return UNSEEN.findall(re.sub(r"\r|\x1b\[A", "", text))


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_is_shown_as_it_can_be_read(key):
    text = TEXTS[key]
    shown = legible(text)
    assert UNSEEN.findall(shown) == []
    assert legible(shown) == shown
    assert printable(text, 100) == (shown if len(shown) <= 100 else f"{shown[:99]}…")
    if key in READABLE or (text.isascii() and text.isprintable()):
        assert shown == text
    else:
        assert shown != text or key == "formula wide"


def test_different_names_are_shown_as_different():
    texts = [*TEXTS.values(), HALF, *(f"a{chr(code)}b" for code in range(0x3000))]
    texts += [f"a{chr(code)}b" for code in range(0xD7FF, 0x10FFFF, 97)]
    assert len(set(map(legible, texts))) == len(set(texts))
    for code in (0x034F, 0x115F, 0x180B, 0x200B, 0x2800, 0x3164, 0xFE0F, 0xFFA0, 0xE0100):
        assert legible(f"a{chr(code)}b").isascii(), f"{code:x}"


def test_marks_stay_with_their_letter():
    assert legible("e\u0301\u0302\u0303\u0304") == "e\u0301\u0302\u0303\u0304"
    assert legible("e\u0301\u0302\u0303\u0304\u0305\u0306") == (
        "e\u0301\u0302\u0303\u0304\\u0305\\u0306"
    )
    assert legible("\u0301e") == "\\u0301e"


def test_joiners_stay_where_writing_needs_them():
    for text in ("می\u200cخواهم", "क्\u200dष", "👩\u200d🔬", "👩🏽\u200d🔬", "❤\ufe0f\u200d🔥"):
        assert legible(text) == text
    for text in (
        "a\u200cb", "模\u200d型", "👩\u200d", "\u200d🔬", "a\ufe0f", "\ufe0fa", "^\u200d🔬",
    ):  # fmt: skip
        assert not re.search("[\u200c\u200d\ufe0f]", legible(text)), ascii(text)


def test_an_error_is_one_line_whatever_it_quotes():
    for text in (*TEXTS.values(), HALF):
        said = str(sr.SparsityReportError(f"{text}: no such file\n{text}"))
        assert UNSEEN.findall(said) == []
        assert "\n" not in said
        assert len(said) <= 2000


def test_the_page_holds_names_as_text_only(page):
    links = [attrs.get(key, "") for _, attrs in page.elements for key in ("href", "src")]
    assert {link[:1] for link in links if not link.startswith("data:")} <= {"#", ""}
    names = [name for _, attrs in page.elements for name in attrs]
    assert not [name for name in names if name.startswith("on")]
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "textarea", "iframe", "object", "embed", "base", "b", "i"}
    values = [value or "" for _, attrs in page.elements for value in attrs.values()]
    for text in [*values, *(text for _, text in page.texts)]:
        assert unseen(text.replace("\t", "")) == []
    words = "\n".join(text for _, text in page.texts)
    for text in hostile.module_names():
        assert COLUMNS["part"].format.write(text) in words, ascii(text)
    for key in ("typst include", "bibtex", "latex carets", "terminal link"):
        assert printable(TEXTS[key], 40)[:39] in words, key
    assert "49" not in page.elements[0][0]


def test_scripts_of_the_page_read_names_as_data(page):
    read = [
        (attrs.get("id"), text)
        for (_, attrs), text in page.scripts
        if attrs.get("type") == "application/json"
    ]
    assert {key for key, _ in read} == {"words"}
    for _, text in read:
        assert not re.search("[<>&\u2028\u2029]", text)
        assert UNSEEN.findall(json.dumps(json.loads(text), ensure_ascii=False)) == []


def test_the_page_of_explore_holds_names_as_text_only(saved, folder):
    shown = Page(write_explorer(sr.read_study(saved), folder / "explore.html"))
    assert not [name for _, attrs in shown.elements for name in attrs if name.startswith("on")]
    assert not [attrs for _, attrs in shown.elements if {"href", "src"} & set(attrs)]
    for text in [text for _, text in shown.texts]:
        assert unseen(text) == []


def test_numbers_keep_their_places_beside_words_from_the_right(study):
    """In a sentence such words stand by themselves; else the numbers behind them change places."""
    named = sr.compare(sr.dense(study.weights, name=TEXTS["hebrew"]))
    (said, *_) = (text for text in sr.summarize(named) if TEXTS["hebrew"] in text)
    shown = environment().from_string("{{ said | unbroken }}").render(said=said)
    assert "<bdi>שלום</bdi> 30 <bdi>שכבה</bdi>" in shown


def test_no_cell_of_csv_begins_a_formula_or_ends_early(study, folder):
    for path in sr.write_csv(study, folder / "csv"):
        text = path.read_bytes().decode()
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert len({len(row) for row in rows}) == 1
        assert len(rows) == text.count("\n") == len(text.splitlines())
        for separator in ",;":
            with path.open(newline="", encoding="utf-8") as file:
                rows += csv.reader(file, delimiter=separator)
        for cell in (cell for row in rows for cell in row):
            assert UNSEEN.findall(cell) == []
            assert not re.match(r"[=+@＝＋－＠]|-(?![\d.])", cell.strip(' "')), ascii(cell)
    layers = folder / "csv" / f"layers_{variant_stems(study)[NAMES[0]]}.csv"
    with layers.open(newline="", encoding="utf-8") as file:
        written = [row["module_name"] for row in csv.DictReader(file)]
    names = [legible(text) for text in study_names(study)]
    assert [text.replace("'", "") for text in written] == [name.replace("'", "") for name in names]


def study_names(study):
    first = study.layers["variant"] == study.variants["variant"].iloc[0]
    return list(study.layers.loc[first, "module_name"])


def test_no_name_is_markup_in_markdown():
    """Whoever reads tables of GitHub's Markdown reads the names, and nothing else."""
    columns = [Column("name", text="<b>", format=name_format(10**6))]
    plugins = ["table", "url", "strikethrough", "footnotes", "math", "superscript"]
    read = mistune.create_markdown(escape=False, plugins=plugins)
    for text in (*TEXTS.values(), "www.gone.invalid", "a^b^", "x http://gone.invalid"):
        table = to_markdown(table_of("t", f"Of {text}", columns, [{"name": text}]))
        cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>|<p>(.*?)</p>", read(table), re.DOTALL)
        shown = [" ".join(html.unescape(cell or caption).split()) for cell, caption in cells]
        due = [" ".join(legible(whole).split()) for whole in (f"Of {text}", "<b>", text)]
        assert shown == due


def test_a_saved_study_has_every_name_as_it_is(study, folder):
    path = study.save(folder / "again.json")
    told = json.loads(path.read_bytes().decode())
    assert [row[0] for row in told["variants"]["rows"]] == [*NAMES]
    again = sr.read_study(path)
    assert sorted(study_names(again)) == sorted(hostile.module_names())
    assert list(again.sensitivity["part"]) == [*study.sensitivity["part"]]


def test_half_a_character_goes_into_no_file(tmp_path):
    model = nn.ModuleDict({HALF: nn.Linear(2, 2)})
    with pytest.raises(sr.SparsityReportError, match=r"half.*ud800.*is not Unicode"):
        sr.load(model)
    weights = sr.load(nn.Linear(2, 2), name=HALF)
    assert weights.name == "half\\ud800"
    with pytest.raises(sr.SparsityReportError, match=r"name=.*is not Unicode text"):
        sr.dense(weights, name=HALF)
    study = sr.compare(sr.dense(weights))
    assert sr.read_study(study.save(tmp_path / "study.json")).variants["model"][0] == weights.name
    assert sr.write_csv(study, tmp_path / "csv")


@pytest.mark.parametrize("name", ["a\0b", HALF])
def test_impossible_file_names_are_refused(tiny, tmp_path, name):
    study, path = sr.compare(sr.dense(sr.load(tiny, name="tiny"))), tmp_path / name
    for write in (
        lambda: study.save(f"{path}.json"), lambda: sr.write_report(study, f"{path}.html"),
        lambda: sr.write_csv(study, path),
    ):  # fmt: skip
        with pytest.raises(sr.SparsityReportError, match="cannot write"):
            write()
    for read in (sr.load, sr.read_study):
        with pytest.raises(sr.SparsityReportError):
            read(path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_name_is_no_text_is_opened(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    shutil.copyfile(
        hostile.write_safetensors(tmp_path / "x.safetensors", ["fc.weight"]),
        folder / "model.safetensors",
    )
    study = sr.compare(sr.dense(sr.load(folder)))
    assert list(study.variants["model"]) == ["caf\\udce9"]
    assert study.save(folder / "study.json").is_file()
    outcome = command("render", folder / "study.json", "--out", folder / "out", *FEW)
    assert outcome.returncode == 0
    assert "caf\\udce9" in outcome.stdout


@pytest.mark.parametrize("kind", ["render", "error", "usage"])
def test_a_terminal_shows_names_and_obeys_none(saved, folder, kind):
    strange = folder / TEXTS["terminal link"][1:3]
    lines = {
        "render": ("render", saved, "--out", folder / "out", *FEW),
        "error": ("render", f"{strange}{TEXTS['terminal clear']}{TEXTS['override']}"),
        "usage": ("render", saved, f"{TEXTS['terminal clear']}{TEXTS['override']}"),
    }
    text, code = on_terminal(*lines[kind])
    assert code == {"render": 0, "error": 2, "usage": 2}[kind]
    assert unseen(text) == []
    # The verdict and the strip name no variant; the strip names the text of the scores.
    assert (']\\n#include "' if kind == "render" else "\\x1b[2J\\x1b[31mred") in text


def test_a_bar_of_progress_shows_the_end_of_a_name():
    texts = [*TEXTS.values(), HALF]
    often = mock.patch.object(tqdm.auto.tqdm, "update", lambda bar, _: bar.refresh())
    at_once = mock.patch.object(progress, "_LONG", 0)
    with terminal() as parts, often, at_once, progress.bar("counting") as show:
        for text in texts:
            show(1, 2, text)
    said = b"".join(parts).decode()
    assert unseen(said) == []
    for text in texts:
        assert legible(text)[-20:] in said, ascii(text)


def test_a_stream_that_lacks_a_sign_gets_it_spelled(saved, tmp_path):
    with (tmp_path / "out.txt").open("w", encoding="ascii") as out:
        line = ["sparsity-report", "render", str(saved), "--out", str(tmp_path / "o"), *FEW]
        with mock.patch.object(sys, "argv", line), redirect_stdout(out), pytest.raises(SystemExit):
            cli.main()
        terminal_of.print_line("a → b", out)
    assert (tmp_path / "out.txt").read_text().endswith("a \\u2192 b\n")


def test_values_are_shown_by_their_names(study):
    for value in (study, *study.variants.to_dict("records")):
        assert UNSEEN.findall(repr(value).replace("\n", "")) == []
    assert repr(study).startswith("Study of <img src=x onerror=hacked=1>\\u202egnirt…: </script>")


def test_parameters_of_a_notebook_are_data(tmp_path):
    for text in (*TEXTS.values(), HALF):
        tagged = nbformat.v4.new_code_cell("MODEL = None", metadata={"tags": ["parameters"]})
        node = nbformat.v4.new_notebook(cells=[tagged])
        values = {"MODEL": text, "SPARSITY": 0.3, "OUT": text}
        _set_parameters(node, values, tmp_path / "x.ipynb")
        nbformat.validate(node)
        nbformat.writes(node).encode()
        statements = ast.parse(node.cells[1].source).body
        assert [type(each).__name__ for each in statements] == ["Assign"] * 3
        values = [ast.literal_eval(each.value) for each in statements]
        assert values == [text, 0.3, text]


@pytest.mark.parametrize("hide_inputs", [True, False])
def test_an_exported_notebook_holds_names_as_text_only(study, tmp_path, hide_inputs):
    explorer = sr.explore(study)
    bundles = [value._repr_mimebundle_() for value in (study, explorer)]
    bundles = [each[0] if isinstance(each, tuple) else each for each in bundles]
    outputs = [nbformat.v4.new_output("display_data", data=data) for data in bundles]
    said = "\n".join(map(legible, TEXTS.values()))
    outputs.append(nbformat.v4.new_output("stream", name="stdout", text=said))
    source = f"MODEL = {[*TEXTS.values()]!r}"
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, outputs=outputs)])
    (tmp_path / "page.html").write_text(as_html(node, hide_inputs), encoding="utf-8")
    shown = Page(tmp_path / "page.html")
    names = {name for _, attrs in shown.elements for name in attrs}
    assert not [name for name in names if name.startswith("on")]
    links = [attrs.get(key) or "" for _, attrs in shown.elements for key in ("href", "src")]
    assert {link[:1] for link in links if not link.startswith("data:")} <= {"#", ""}
    tags = {tag for tag, _ in shown.elements}
    assert not tags & {"textarea", "iframe", "object", "embed", "base"}
    words = " ".join(text for _, text in shown.texts)
    for key in ("script", "image", "svg", "jinja", "latex input"):
        assert TEXTS[key] in words, key
    assert not [text for _, text in shown.scripts if text.strip() == "hacked=1"]


def test_names_of_files_are_plain_and_distinct():
    texts = [*TEXTS.values(), "Cafe", "cafe-2", "CAFE ", "x" * 100_001]
    stems = variant_stems(SimpleNamespace(variants=pd.DataFrame({"variant": texts})))
    assert list(stems) == texts
    assert len({unicodedata.normalize("NFKC", stem).casefold() for stem in stems.values()}) == (
        len(texts)
    )
    for stem in stems.values():
        assert re.fullmatch(r"[a-z0-9_-]{1,90}", stem)


def test_writable_leaves_text_alone():
    for text in TEXTS.values():
        assert writable(text) == text
