"""Drawing of the package as a stack of wings, from its source files.

The directive ``package-wings`` has a line ``wing: where to look`` for each wing that needs one.
Order, descriptions, modules and imports come from the tree.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "support"))

import house  # noqa: E402 - the rules that tests apply to the same tree


class Wing(NamedTuple):
    """A wing of the package."""

    name: str
    description: str
    rooms: list[str]
    imported: list[str]


def wings() -> list[Wing]:
    """Return the wings from the top down, with the modules and wings that they import."""
    package = ROOT / house.PACKAGE
    modules = house.read(package)
    public = house.public_names((package / "__init__.pyi").read_text(encoding="utf-8"))
    below, rooms = defaultdict(set), defaultdict(set)
    for pair in house.edges(modules, public):
        above, wing = (name.partition(".")[0] for name in pair)
        below[above].add(wing)
    folders = {module.name for module in modules if module.is_package}
    for module in modules:
        wing, _, rest = module.name.partition(".")
        if room := rest.partition(".")[0]:
            rooms[wing].add(f"{room}/" if f"{wing}.{room}" in folders else room)
    texts = {module.name: ast.get_docstring(module.tree) or "" for module in modules}
    return [
        Wing(
            name,
            " ".join(texts[name].split("\n\n")[0].replace("``", "`").split()),
            sorted(rooms[name]),
            [other for other in house.WINGS if other in below[name] - {name}],
        )
        for name in house.WINGS
    ]


class PackageWings(SphinxDirective):
    """The stack of wings as a list, which a style sheet draws as floors."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the list; refuse a line about a wing that does not exist."""
        lines = (line.partition(": ") for line in self.content if line.strip())
        hints = {name: text for name, _, text in lines}
        stack = nodes.bullet_list(classes=["wings"])
        for wing in wings():
            self.env.note_dependency(str(ROOT / house.PACKAGE / wing.name))
            stack += self._floor(wing, hints.pop(wing.name, ""))
        if hints:
            raise self.error(f"no such wing: {', '.join(hints)}")
        return [stack]

    def _floor(self, wing: Wing, hint: str) -> nodes.list_item:
        title = nodes.paragraph("", "", nodes.strong("", wing.name), classes=["wing-name"])
        floor = nodes.list_item("", title)
        for text in (wing.description, hint and f"Where to look: {hint}."):
            if text:
                floor += nodes.paragraph("", "", *self.parse_inline(text)[0])
        for label, names in (("Modules", wing.rooms), ("Imports", wing.imported)):
            if names:
                text = nodes.Text(f"{label}: {', '.join(names)}")
                floor += nodes.paragraph("", "", text, classes=["wing-list"])
        return floor


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive and its style sheet."""
    app.add_directive("package-wings", PackageWings)
    app.add_css_file("wings.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
