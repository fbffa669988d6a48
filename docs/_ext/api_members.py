"""Methods and properties of a public class: those that this package defines."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sparsity_report

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


def public_members(value: object) -> list[str]:
    """Return the public methods and properties of a class, without those of other packages."""
    classes = reversed(value.__mro__) if isinstance(value, type) else ()
    return list(
        dict.fromkeys(
            name
            for each in classes
            if each.__module__.startswith("sparsity_report.")
            for name, member in vars(each).items()
            if not name.startswith("_") and not isinstance(member, type)
            if callable(member) or isinstance(member, property | cached_property | classmethod)
        )
    )


def hide_constructor(app: Sphinx, kind: str, name: str, value: object, *_: object) -> Any:  # noqa: ARG001
    """Hide the signature of a class that functions return, whose docstring has no parameters."""
    is_returned = kind == "class" and "Parameters\n" not in inspect.cleandoc(value.__doc__ or "")
    return ("", None) if is_returned else None


def setup(app: Sphinx) -> ExtensionMetadata:
    """Pass the members of public classes to the templates of autosummary."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.autosummary")
    app.connect("autodoc-process-signature", hide_constructor)
    members = {
        name: public_members(getattr(sparsity_report, name)) for name in dir(sparsity_report)
    }
    app.config.autosummary_context["public_members"] = members
    return {"parallel_read_safe": True, "parallel_write_safe": True}
