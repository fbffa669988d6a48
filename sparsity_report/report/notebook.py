"""A notebook as a report: executed with parameters, kept as it is or exported as one page."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files.atomic import check_folder, write_file
from sparsity_report.files.package_data import shipped
from sparsity_report.report.template_files import template_folders, template_text
from sparsity_report.viewer.embed import digests

if TYPE_CHECKING:
    from nbclient import NotebookClient
    from nbformat import NotebookNode

DEFAULT = "structural_csr_analysis"
# Output that needs a kernel.
_WIDGET = "application/vnd.jupyter.widget-view+json"
# Names of columns and rows.
_HEAD = re.compile(r"(?<=>)\w+(?=</th>)")


def write_notebook(
    model: str | os.PathLike[str] | None,
    path: str | os.PathLike[str],
    *,
    notebook: str | os.PathLike[str] = DEFAULT,
    sparsity: float = 0.3,
    hide_inputs: bool = False,
    template_dir: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Execute a notebook on a model and write it with its outputs.

    The notebook runs in the folder of `path` in another Python process, and may write there.

    Parameters
    ----------
    model : str or path-like, optional
        A model that :func:`sparsity_report.load` opens; the default is the built-in demo.
    path : path-like
        Ends in ``.html`` or ``.ipynb``.
    notebook : str or path-like
        ``"structural_csr_analysis"``, ``"thesis_figures"``, ``"policies"``, or the path of a
        notebook with the parameters ``MODEL``, ``SPARSITY`` and ``OUT`` in a cell tagged
        ``parameters``.
    sparsity : float
        Between 0 and 1.
    hide_inputs : bool
        True to leave the code out of an ``.html`` file.
    template_dir : path-like, optional
        Folder whose subfolder ``notebook`` has an nbconvert template of your own.
    options : mapping, optional
        Keyword options of :func:`sparsity_report.load`, such as ``{"allow_pickle": True}``. The
        notebook receives them as its parameter ``OPTIONS``.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    SparsityReportError
        A cell fails, or the libraries that execute notebooks are missing.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.write_notebook(None, "analysis.pdf")
    Traceback (most recent call last):
    sparsity_report.errors.SparsityReportError: cannot write analysis.pdf: ...
    """
    target = notebook_file(path)
    if not all(map(find_spec, ("nbformat", "nbclient", "nbconvert", "ipykernel"))):
        raise SparsityReportError(
            "a notebook needs more libraries; run pip install nbclient nbconvert ipykernel"
        )
    import nbformat

    if not isinstance(model, str | os.PathLike | None):
        raise SparsityReportError(
            f"a notebook opens its model itself: give its name or path, not a "
            f"{type(model).__name__}; a study is saved, and its path given to thesis_figures"
        )
    check_folder(target.parent)
    source = _located(notebook)
    try:
        node = nbformat.read(source, as_version=4)
    except Exception as error:  # nbformat has many, of several libraries
        raise SparsityReportError(f"{source} is no notebook: {error}") from error
    opened = None if model is None else _resolved(str(model))
    values: dict[str, Any] = {"MODEL": opened, "SPARSITY": sparsity, "OUT": target.stem}
    if options:
        values["OPTIONS"] = {key: _resolved(value) for key, value in options.items()}
    template_folders(template_dir)  # refused before a cell runs
    _set_parameters(node, values, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    _execute(node, target.parent)
    if target.suffix.lower() == ".ipynb":
        return write_file(target, nbformat.writes(node) + "\n")
    return write_file(target, as_html(node, hide_inputs, template_dir))


def notebook_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a notebook to write; refuse other suffixes than .html and .ipynb."""
    target = Path(path)
    if target.suffix.lower() not in {".html", ".ipynb"}:
        raise SparsityReportError(
            f"cannot write {target}: notebooks are .html or .ipynb files; change the suffix"
        )
    return target


def _resolved(value: Any) -> Any:
    """Return a path that holds in every folder; other values as they are."""
    text = str(value) if isinstance(value, str | os.PathLike) else ""
    if text and os.path.exists(local := os.path.expanduser(text)):  # noqa: PTH110, PTH111 - never raise
        return str(Path(local).resolve())
    return text or value


def _located(notebook: str | os.PathLike[str]) -> Path:
    folders = shipped("notebooks")
    for path in (*(folder / f"{notebook}.ipynb" for folder in folders), Path(notebook)):
        if path.is_file():
            return path
    names = sorted({path.stem for folder in folders for path in folder.glob("*.ipynb")})
    raise SparsityReportError(
        f"no notebook {printable(str(notebook))}: give a path or one of {', '.join(names)}"
    )


def _set_parameters(node: NotebookNode, values: dict[str, Any], source: Path) -> None:
    """Insert a cell of values after the cell of defaults, as papermill does."""
    import nbformat

    tagged = [i for i, c in enumerate(node.cells) if "parameters" in c.metadata.get("tags", [])]
    if not tagged:
        raise SparsityReportError(f"{source} has no cell tagged 'parameters' to set")
    if "OPTIONS" in values and "OPTIONS" not in node.cells[tagged[0]].source:
        raise SparsityReportError(
            f"{source} has no parameter OPTIONS for {', '.join(values['OPTIONS'])}; add it, and "
            "open the model by sr.load(MODEL, **OPTIONS)"
        )
    code = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    cell = nbformat.v4.new_code_cell(code, metadata={"tags": ["injected-parameters"]})
    cell["id"] = "injected-parameters"
    node.cells.insert(tagged[0] + 1, cell)


def _execute(node: NotebookNode, folder: Path) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    client = NotebookClient(
        node,
        timeout=None,
        kernel_name="python3",
        store_widget_state=False,
        # The kernel warns about unencrypted connections, and listens on loopback only.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        _run(client)
    except (CellExecutionError, DeadKernelError, RuntimeError, OSError) as error:
        # Without colors for terminals.
        message = re.sub(r"\x1b\[[0-9;]*m", "", str(getattr(error, "evalue", error)))
        raise SparsityReportError(f"the notebook stopped: {message}") from error


def _run(client: NotebookClient) -> None:
    """Execute in a thread, since nbclient handles signals in the main thread."""
    with ThreadPoolExecutor(1) as thread:
        # Progress bars are no output.
        quiet = os.environ | {"TQDM_DISABLE": "1"}
        running = thread.submit(lambda: asyncio.run(client.async_execute(env=quiet)))
        try:
            running.result()
        finally:
            while not running.done():  # this process is asked to stop
                kernel = getattr(client.km, "provisioner", None)
                if process := getattr(kernel, "process", None):
                    process.kill()
                wait([running], timeout=0.1)


def as_html(
    node: NotebookNode, hide_inputs: bool, template_dir: str | os.PathLike[str] | None = None
) -> str:
    """Return a notebook with its outputs as one page that fetches nothing."""
    from nbconvert import HTMLExporter

    from sparsity_report.draw.theme import font_face_css
    from sparsity_report.report.templates import blaming

    folders = [folder for folder in template_folders(template_dir) if folder.is_dir()]
    styles = (template_text(f, template_dir) for f in ("report.css", "notebook/notebook.css"))
    exporter = HTMLExporter(
        template_name="notebook",
        extra_template_basedirs=[str(folder) for folder in folders],
        exclude_input=hide_inputs,
    )
    exporter.register_filter("apart", _apart())
    title = next((c.source for c in node.cells if c.cell_type == "markdown"), "")
    variables = {
        "title": printable(title.splitlines()[0].lstrip("# ") if title else "", 120),
        "css": "\n".join([font_face_css(), *styles]),
        "scripts": " ".join(digests()),
    }
    _prepare_outputs(node)
    page: str
    with blaming("export the notebook"):
        page, _ = exporter.from_notebook_node(node, {"sparsity_report": variables})
    return page


def _prepare_outputs(node: NotebookNode) -> None:
    """Remove outputs that need a kernel; break heads of tables after underscores."""
    for cell in node.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(_WIDGET, None)
            if "text/html" in data:
                data["text/html"] = _HEAD.sub(
                    lambda head: head[0].replace("_", "_<wbr>"), data["text/html"]
                )
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("data", True)]


def _apart() -> Callable[[str], str]:
    """Return a filter that gives the parts of each picture names unique in the page."""
    number = itertools.count(1)

    def rename(svg: str) -> str:
        return re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>plate{next(number)}-", svg)

    return rename
