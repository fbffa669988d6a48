"""The exporter of ``jupyter nbconvert --to sparsity-report``: a saved notebook as one page.

nbconvert finds it by the entry point that ``pyproject.toml`` declares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbconvert import HTMLExporter

from sparsity_report.report.notebook import as_html

if TYPE_CHECKING:
    from nbformat import NotebookNode


class PageExporter(HTMLExporter):  # type: ignore[misc]  # nbconvert has no types
    """A notebook as a page that fetches nothing, in which explorers keep their slider.

    ``nbconvert --to html`` shows an explorer's picture instead: what draws its slider anew, Vega,
    is 900 kB, and stands once in a page, not in every cell of a notebook.
    """

    export_from_notebook = "Sparsity report"

    def from_notebook_node(
        self, nb: NotebookNode, resources: Any = None, **_: Any
    ) -> tuple[str, Any]:
        """Return the page, and what nbconvert has to know of it: the file's ending."""
        about = {**(resources or {}), "output_extension": self.file_extension}
        return as_html(nb, self.exclude_input), about
