"""Notebooks executed from top to bottom, offline, on the demo model and on a real checkpoint."""

import os
import re
import sys
from copy import deepcopy
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from browser import check_no_label_is_cut, drawn
from helpers import command
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbconvert import HTMLExporter

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.report import notebook
from sparsity_report.report.notebook import as_html

WIDGET = "application/vnd.jupyter.widget-view+json"
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def kernel():
    """One kernel for all notebooks, since importing the package takes most of a kernel's time."""
    manager = KernelManager()
    # A bar that has ended is no output; on a slow machine one is drawn.
    manager.start_kernel(env=os.environ | {"TQDM_DISABLE": "1"})
    yield manager
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def execute(kernel, name, folder, **parameters):
    """Run a notebook in the shared kernel, with no name of the one before."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    at = next(i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", []))
    assignments = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    for place, code in ((at + 1, assignments), (0, f"%reset -f\n%cd -q {folder}")):
        notebook.cells.insert(place, nbformat.v4.new_code_cell(code))
    client = NotebookClient(notebook, km=kernel, timeout=300)
    client.execute()
    client.kc.stop_channels()
    return notebook


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_structural_csr_analysis(chromium, kernel, tmp_path):
    notebook = execute(
        kernel, "structural_csr_analysis.ipynb", tmp_path,
        MODEL=str(DEMO), OUT="structural_layers",
    )  # fmt: skip
    text = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "24 prunable linear layers" in text
    study = sr.read_study(tmp_path / "structural_layers" / "study.json")
    assert all(sentence in text for sentence in sr.summarize(study))
    masked = pd.read_csv(tmp_path / "structural_layers" / "layers_masked30.csv")
    assert (masked["weight_total"] - masked["weight_nonzero"])[masked["prunable"]].sum() == round(
        0.3 * 4 * (4 * 128**2 + 2 * 128 * 512)
    )
    assert (tmp_path / "structural_layers" / "report.html").is_file()
    pictures = [
        output["data"] for cell in notebook.cells for output in cell.get("outputs", [])
        if "data" in output
    ]  # fmt: skip
    # Three per variant; the map and the curve.
    assert sum("image/svg+xml" in picture for picture in pictures) == 3 * 3
    assert sum("image/png" in picture for picture in pictures) == 2
    drawn = [p for p in pictures if "image/svg+xml" in p or "image/png" in p]
    assert not any("text/html" in picture for picture in drawn)
    (tmp_path / "o.html").write_text(as_html(notebook, hide_inputs=False), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 800, "height": 600})
    page.goto((tmp_path / "o.html").as_uri())
    shown = "boxes => boxes.map(box => box.scrollWidth <= box.clientWidth)"
    tables = page.locator(".output_html").evaluate_all(shown)
    page.close()
    assert tables == [True] * 8


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_thesis_figures_from_a_study(kernel, demo_study, tmp_path):
    """From a model, ``TestCommand.test_html`` makes them."""
    study = demo_study.save(tmp_path / "study.json")
    notebook = execute(kernel, "thesis_figures.ipynb", tmp_path, MODEL=str(study), OUT="thesis")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/svg+xml" in output.get("data", {}) for output in outputs) == 1 + 1
    again = sr.read_study(tmp_path / "thesis" / "study.json")
    assert sr.summarize(again)[:3] == sr.summarize(demo_study)[:3]
    assert (tmp_path / "thesis" / "figures" / "csr_bytes_text.pdf").is_file()
    assert (tmp_path / "thesis" / "example.tex").is_file()


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_policies(kernel, tmp_path):
    text = "def double(x):\n    return 2 * x\n" * 20
    notebook = execute(kernel, "policies.ipynb", tmp_path, SPARSITY=0.5, TEXT=text, OUT="paper")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    maps = {path.name for path in (tmp_path / "paper" / "figures").glob("map_*_text.svg")}
    assert "map_masked50_text.svg" in maps
    assert sum("image/svg+xml" in output.get("data", {}) for output in outputs) == 1 + len(maps)
    (grid,) = (o["data"]["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {}))
    scores = sr.read_study(tmp_path / "paper" / "study.json").quality.set_index("variant")
    for variant, label in (("Dense", "Dense"), ("Masked50", "Global magnitude"),
                           ("Masked2:4", "Magnitude")):  # fmt: skip
        assert re.search(rf"\| {label} \| [^|]* \| {scores['perplexity'][variant]:.2f} \|", grid)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestCommand:
    def test_html(self, driver, minilm_path, tmp_path, capfd):
        run = command(
            "notebook", minilm_path, "-o", tmp_path / "thesis_figures.html", "--sparsity", "0.5",
            "--hide-inputs",
            "--notebook", "thesis_figures",
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        # The kernel writes to the error stream of the process itself.
        assert "encryption" not in run.stderr + capfd.readouterr().err
        page = (tmp_path / "thesis_figures.html").read_text(encoding="utf-8")
        assert "zeroed 5\u202f308\u202f416 of 10\u202f616\u202f832 prunable" in page
        assert "<script" not in page
        assert "default-src 'none'" in page
        assert not re.findall(r"(?:href|src)=\"(?!#|data:)|url\((?!#|data:)", page)
        assert "sr.load(" not in page
        assert len(re.findall(r"<svg\b[^>]* xmlns=", page)) == 2
        named = re.findall(r' id="(plate[^"]+)"', page)
        assert len(named) == len(set(named)) > 2
        assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(named)
        assert (tmp_path / "thesis_figures" / "study.json").is_file()
        check_no_label_is_cut(driver, tmp_path / "thesis_figures.html", tmp_path / "few")

    def test_ipynb_of_a_notebook_of_ones_own(self, tmp_path):
        mine = nbformat.v4.new_notebook()
        cell = nbformat.v4.new_code_cell("SPARSITY = 0", metadata={"tags": ["parameters"]})
        mine.cells = [cell, nbformat.v4.new_code_cell("print(MODEL, SPARSITY, OUT)")]
        nbformat.write(mine, tmp_path / "mine.ipynb")
        run = command(
            "notebook", "org/model", "-o", tmp_path / "o" / "mine.ipynb", "--sparsity", "25%",
            "--notebook", tmp_path / "mine.ipynb",
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        executed = nbformat.read(tmp_path / "o" / "mine.ipynb", as_version=4)
        assert executed.cells[-1].outputs[0].text == "org/model 0.25 mine\n"

    def test_an_error_in_a_cell_is_one_line(self, tmp_path):
        cells = ["MODEL = None", "import sparsity_report as sr\nsr.load(MODEL)"]
        mine = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)])
        mine.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(mine, tmp_path / "mine.ipynb")
        (tmp_path / "empty.gguf").touch()
        run = command(
            "notebook", tmp_path / "empty.gguf", "--notebook", tmp_path / "mine.ipynb", "-o",
            tmp_path / "o" / "mine.html",
        )  # fmt: skip
        assert run.returncode == 2
        assert "the notebook stopped: " in run.stderr.splitlines()[-1]
        assert not list((tmp_path / "o").glob("*.*"))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(["-o", "x.pdf"], r".html or .ipynb files"),
         (["--base", "x", "--notebook", "{mine}"], "has no parameter OPTIONS for base"),
         (["--notebook", "none"], "no notebook none: give a path or one of"),
         (["--notebook", __file__], "is no notebook"), (["--sparsity", "x"], "0 to 1"),
         (["--sparsity", "1.5"], "0 to 1")],
    )  # fmt: skip
    def test_bad_input_is_one_line(self, tmp_path, arguments, message):
        mine = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("MODEL = None")])
        mine.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(mine, tmp_path / "mine.ipynb")
        arguments = [each.replace("{mine}", str(tmp_path / "mine.ipynb")) for each in arguments]
        run = command("notebook", "-o", tmp_path / "o" / "x.html", *arguments)
        assert run.returncode == 2
        assert message in run.stderr.splitlines()[-1]
        assert not list((tmp_path / "o").glob("*.*"))


@pytest.fixture(scope="module")
def explored(kernel, tmp_path_factory):
    """The notebook of the explorer and the folder it ran in."""
    folder = tmp_path_factory.mktemp("explored")
    return execute(kernel, "explorer.ipynb", folder, MODEL=None), folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_explorer(explored):
    notebook, folder = explored
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output.get("data", {}) for output in outputs]
    assert len([each for each in data if WIDGET in each]) == 1
    (page,) = [each for each in data if "sparsity-viewer" in each.get("text/html", "")]
    study = sr.read_study(folder / "study.json")
    assert page["text/plain"].split("\n") == sr.summarize(study)
    assert "<svg" in (folder / "explorer.svg").read_text(encoding="utf-8")
    notebook.metadata.pop("widgets", None)  # JupyterLab saves no state of widgets
    assert len(nbformat.writes(notebook)) < 120_000


def plain(notebook):
    """The page of ``jupyter nbconvert --to html``."""
    text, _ = HTMLExporter().from_notebook_node(notebook)
    return text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "export", [plain, lambda nb: as_html(nb, hide_inputs=True)], ids=["plain", "own"]
)
def test_an_exported_explorer_moves_without_a_kernel(chromium, explored, tmp_path, export):
    notebook, _ = explored
    notebook.metadata.pop("widgets", None)
    written = tmp_path / "o.html"
    written.write_text(export(deepcopy(notebook)), encoding="utf-8")
    page = chromium.new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.route(re.compile("^https?:"), lambda route: route.abort())
    page.goto(written.as_uri(), wait_until="commit")
    page.locator(".sv-map").wait_for()
    totals = {
        level: sr.compare(sr.csr(sr.global_magnitude(sr.load(), level))).totals["stored_bytes"][0]
        for level in (0.3, 0.4)
    }
    dense = sr.compare(sr.dense(sr.load())).totals["stored_bytes"][0]
    for level, total in totals.items():
        page.evaluate(
            """level => document.querySelector(".sparsity-viewer").viewer
            .set({sparsity: level, layout: "csr"})""",
            level,
        )
        text = drawn(page).locator(".sv-sentence").inner_text().replace("\u202f", " ")
        assert f"{total / dense:.2f} ×" in text
        assert f"{100 * level:g}" in page.locator(".sv-slider").get_attribute("aria-valuetext")
    assert wrong == []
    page.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_page_of_a_notebook_runs_the_viewer_only(chromium, explored, tmp_path):
    notebook = deepcopy(explored[0])
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = next(o["data"] for o in outputs if "sparsity-viewer" in str(o.get("data", {})))
    data["text/html"] += "<script>window.ran = 1</script><img src=x onerror='ran = 2'>"
    (tmp_path / "o.html").write_text(as_html(notebook, hide_inputs=True), encoding="utf-8")
    page = chromium.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.goto((tmp_path / "o.html").as_uri())
    page.locator(".sv-map").wait_for()
    assert page.evaluate("window.ran") is None
    assert wrong
    assert all("Content Security Policy" in line for line in wrong), wrong
    page.close()


def test_notebooks_are_saved_without_outputs():
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), path.name


def test_texts_hold_at_every_sparsity():
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            fixed = cell.cell_type == "markdown" and re.search(r"(Masked|CSR)\d|30 ?%", cell.source)
            assert not fixed, path.name


def test_the_default_model_is_the_source_notebooks():
    source = (NOTEBOOKS / "structural_csr_analysis.ipynb").read_text(encoding="utf-8")
    assert "EleutherAI/pythia-410m" in source
    assert "facebook/opt-125m" in source


def test_a_study_is_no_model_and_a_long_name_no_file(demo_study, tmp_path, monkeypatch):
    with pytest.raises(sr.SparsityReportError, match=r"not a Study; a study is saved, and"):
        sr.write_notebook(demo_study, tmp_path / "n.html")
    opened = []
    monkeypatch.setattr(notebook, "_execute", lambda node, *_: opened.append(node))
    sr.write_notebook("x" * 5000, tmp_path / "n.ipynb")
    assert "x" * 5000 in str(opened)


def test_missing_libraries_are_reported_before_a_cell_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbconvert", None)
    with pytest.raises(sr.SparsityReportError, match="run pip install nbclient"):
        sr.write_notebook(None, tmp_path / "x" / "o.html")
    assert not list(tmp_path.iterdir())
