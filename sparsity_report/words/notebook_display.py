"""How a value shows itself where a notebook asks for it."""

from __future__ import annotations

from typing import Any


class Shown:
    """A value that has a picture, a sentence and a table in a notebook cell."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:  # noqa: ARG002
        """Return the value as HTML, LaTeX and text, for the front end to choose from."""
        from sparsity_report.report.notebook_cell import bundle

        return bundle(self)
