"""Types and signatures in the Markdown pages for assistants, which their writer does not know."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def write_type(writer: Any, node: nodes.classifier) -> None:
    """Write the type of a parameter after its name."""
    writer.add(f" : {node.astext()}")
    raise nodes.SkipNode


def write_text(writer: Any, node: nodes.abbreviation) -> None:
    """Write the text of an abbreviation, such as the star of keyword-only parameters."""
    writer.add(node.astext())
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the writers of both nodes."""
    for node, write in ((nodes.classifier, write_type), (nodes.abbreviation, write_text)):
        app.add_node(node, override=True, **{"llms-markdown": (write, None)})
    return {"parallel_read_safe": True, "parallel_write_safe": True}
