"""``sparsity-report explore``: the explorer as a page, for this machine, until Ctrl-C."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from explored import check_slider_moves
from helpers import command

from sparsity_report.cli import explore_command

pytestmark = pytest.mark.slow(seconds=50)


def test_what_it_needs_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(
        explore_command, "find_spec", lambda name: None if name == "voila" else name
    )
    run = command("explore")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "pip install 'sparsity-report[explore]'" in run.stderr


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    line = [sys.executable, "-m", "sparsity_report", "explore", "--sparsity", "30%"]
    process = subprocess.Popen(
        line, cwd=folder, env=os.environ | {"TMPDIR": str(folder)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Tests that run behind another program may have been told to pass Ctrl-C over.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    yield process, folder
    process.terminate()  # it ends its server; killed it could not
    process.wait(90)
    process.stdout.close()
    process.stderr.close()


def test_it_serves_this_machine_and_ends_with_nothing_left(running, chromium):
    process, folder = running
    line = process.stdout.readline()
    match = re.fullmatch(
        r"Explorer of demo: (http://127\.0\.0\.1:(\d+)/\?token=\S{20,}) \(Ctrl-C ends it\)\n", line
    )
    assert match, line or process.stderr.read()
    address, port = match[1], int(match[2])
    with urllib.request.urlopen(address.partition("?")[0], timeout=60) as answer:
        assert "/login" in answer.geturl()  # who does not know the address sees nothing
    (private,) = folder.glob("sparsity-report-*")
    assert private.stat().st_mode & 0o077 == 0
    page = chromium.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    answer = page.goto(address, timeout=120_000)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    outputs = re.findall(
        r'<script type="application/vnd\.voila\.cell-output\+json">(.*?)</', answer.text(), re.S
    )
    shown = [json.loads(output) for output in outputs]
    assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in shown)
    assert not [o for o in shown if o["output_type"] == "error"]
    check_slider_moves(page)
    assert complaints == []
    page.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0
    assert process.stderr.read() == ""
    assert not list(folder.glob("sparsity-report-*"))
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
