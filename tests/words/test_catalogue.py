"""Every text of the catalogue is used, and every key that is said has a text."""

import ast
import re
from pathlib import Path

from jinja2 import nodes

from sparsity_report.report.templates import environment
from sparsity_report.report.thesis import latex_templates
from sparsity_report.sparse.runtime_support import LAYOUTS, RUNTIMES
from sparsity_report.study.derived.heads_experts import FIGURES
from sparsity_report.study.schema import COLUMNS
from sparsity_report.viewer import embed
from sparsity_report.words.catalogue import catalogue
from sparsity_report.words.sentences import say

ROOT = Path(__file__).parents[2]
# Keys of these end in a raw value, such as the name of a column or of a layout.
FAMILIES = (
    "column", "group", "layout", "method", "kind", "alignment", "cache", "strip",
    "speed_reason", "paired", "unpaired", "runtime_layout", "runtime_verdict",
    "runtime_note", "note", "note.tracked", "explorer.sensitivity_note",
    "existing.in", "existing.layers", "existing.whole", "existing.kept",
    "rounding.zeros", "rounding.near_zeros", "caption.hero", "chart.x",
    "chart.perplexity_title", "chart.perplexity_alt",
    "alert", "alert.zero", "audit",
    "audit.excluded", "audit.zero", "audit.zero_by_variant", "speed.not_stated", "sparsity",
    "sparsity_note", "convention.tied_head", "name.convention", "map.too_many", "chart.zeros_title",
    "caption.zeros_by", "cell.base_map", "count.tied", "pair.metric_note",
    "reproduction", "reproduction.dense", "section",
    "pair.gone", "pair.strip", "pair.blocks_title", "pair.blocks_axis",
)  # fmt: skip


def nodes_of_package():
    for path in (ROOT / "sparsity_report").rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def constants():
    """Yield string constants of the package, and keys that its data and templates name."""
    for node in nodes_of_package():
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
    """Yield the keys that calls of `say` and `says` name."""
    place = {"say": 0, "says": 1}
    for node in nodes_of_package():
        name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
        if name in place and isinstance(node.args[place[name]], ast.Constant):
            yield node.args[place[name]].value
    yield from template_keys()


def sources():
    """Return the text of the viewer's JavaScript files."""
    files = sorted(Path(embed.__file__).parent.glob("*.js"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def script_texts():
    """Yield patterns of the keys that the viewer's script names, with ``.*`` for a value."""
    for text in re.findall(r'"([a-z_]+)"|`([a-z_]*\$\{\w[\w.]*\}[a-z_]*)`', sources()):
        yield re.sub(r"\$\{.*?\}", ".*", "".join(text))


def test_every_key_has_a_text_and_every_text_a_use():
    texts = set(catalogue())
    assert len(texts) > 800
    assert set(said_keys()) - texts == set(), "keys without a text"
    used = set(constants())
    named = {f"{family}.{value}" for family in FAMILIES for value in (*used, *COLUMNS)}
    named |= {f"viewer.{part}_{value}" for part in ("metric", "note") for value in used}
    scripted = re.compile("|".join(f"viewer\\.{text}" for text in script_texts()))
    unused = texts - used - named
    assert {key for key in unused if not scripted.fullmatch(key)} == set(), (
        "texts that nothing uses"
    )


def test_every_key_of_the_script_has_a_text():
    said = re.findall(r'[.\s(]say\("(\w+)"', sources())
    assert len(said) > 50
    assert {f"viewer.{key}" for key in said} - set(catalogue()) == set()


def test_the_catalogue_is_sorted():
    assert list(catalogue()) == sorted(catalogue())


def test_values_are_never_templates():
    assert say("audit.excluded_share", reason="{count} {0.__class__}", count=10) == (
        "10 in {count} {0.__class__}"
    )


def test_notes_do_not_open_with_a_name():
    """The first letter of a note becomes a capital, which changes a name."""
    opening = re.compile(r"\{(model|variant|name|first|named)\b")
    assert not [key for key, text in catalogue().items() if key.startswith("note.")
                and opening.match(text)]  # fmt: skip
