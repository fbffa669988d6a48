"""One progress bar for each long function, on terminals and in notebooks but not in pipes."""

import inspect
import io
from contextlib import contextmanager, redirect_stderr
from itertools import count

import nbformat
import pytest
from nbclient import NotebookClient

import sparsity_report as sr
from sparsity_report.cli.terminal import timed_bar
from sparsity_report.counting import progress
from sparsity_report.counting.progress import bar, with_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@contextmanager
def terminal():
    """Capture standard error as a terminal, inside a test as pytest captures it before."""
    with redirect_stderr(Terminal()) as shown:
        yield shown


@pytest.fixture
def at_once(monkeypatch):
    """Show bars without waiting a second."""
    monkeypatch.setattr(progress, "_LONG", 0)


@pytest.mark.usefixtures("at_once")
def test_a_terminal_shows_one_bar():
    with terminal() as shown, bar("counting") as report:
        report(1, 2, "a\x1b[31mname")
        with bar("pruning") as inner:
            inner(1, 2, "x")
    assert "counting" in shown.getvalue()
    assert "pruning" not in shown.getvalue()
    assert "\x1b[31m" not in shown.getvalue()


@pytest.mark.usefixtures("at_once")
def test_pipes_and_disabled_bars_show_nothing(monkeypatch):
    with redirect_stderr(io.StringIO()) as pipe, bar("counting") as report:
        report(1, 2, "x")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with terminal() as shown, bar("counting") as report:
        report(1, 2, "x")
    assert pipe.getvalue() == shown.getvalue() == ""


def test_short_work_shows_no_bar():
    with terminal() as shown, bar("counting") as report:
        report(1, 2, "x")
    assert shown.getvalue() == ""


def test_the_time_of_all_steps_is_that_of_the_first_times_their_number(capsys, monkeypatch):
    for step, line in ((1.5, "about 54 s"), (15, "about 9 min"), (0.1, "")):
        monkeypatch.setattr("sparsity_report.cli.terminal.perf_counter", count(100, step).__next__)
        with timed_bar("scoring", "cli.scoring", 9) as report:
            for done in range(37):
                report(done, 36, "x")
        assert capsys.readouterr().err == (f"Scoring 9 variants: {line}\n" if line else "")


def test_a_given_progress_function_is_called():
    heard = []

    @with_bar("counting")
    def work(number, *, progress=None):
        progress(number, 9, "x")

    with terminal() as shown:
        work(3, progress=lambda *report: heard.append(report))
    assert heard == [(3, 9, "x")]
    assert shown.getvalue() == ""


def test_every_long_function_has_its_bar():
    # Functions that pass their progress on show no second bar.
    passing = [
        "compare", "compare_checkpoints", "import_mask", "sweep", "weight_patterns",
        "write_checkpoint",
    ]  # fmt: skip
    long = [
        getattr(sr, name)
        for name in sr.__all__
        if callable(getattr(sr, name)) and not inspect.isclass(getattr(sr, name))
    ]
    taking = [f for f in long if "progress" in inspect.signature(f).parameters]
    assert {"perplexity", "sensitivity", "global_magnitude"} <= {f.__name__ for f in taking}
    assert [f.__name__ for f in taking if not hasattr(f, "__wrapped__")] == passing


def test_a_notebook_shows_its_own_bar_and_keeps_nothing_of_it():
    cell = nbformat.v4.new_code_cell(
        "import time\n"
        "from sparsity_report.counting import progress\n"
        "progress._LONG = 1e-9\n"
        "for done in (10, 5):\n"
        "    with progress.bar('counting') as told:\n"
        "        time.sleep(0.2)\n"
        "        told(done, 10, 'x')\n"
        "        assert done == 10\n",
        metadata={"tags": ["raises-exception"]},
    )
    node = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(node, kernel_name="python3", store_widget_state=False).execute()
    ended, broken = (output["data"] for output in cell.outputs if "data" in output)
    assert ended == {}
    assert "application/vnd.jupyter.widget-view+json" in broken
    assert "counting" in broken["text/plain"]
