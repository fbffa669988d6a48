"""``sparsity-report explore``: the explorer as a page, for this machine, until Ctrl-C."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import psutil
import pytest


@pytest.fixture
def running(tmp_path):
    """A running explorer, its temporary folder, and the command line of its browser."""
    told = tmp_path / "browser"
    browser = tmp_path / "open"
    browser.write_text(f'#!/bin/sh\nprintf %s "$*" > {told}\n')
    browser.chmod(0o700)
    folder = tmp_path / "temporary"
    folder.mkdir()
    line = [sys.executable, "-m", "sparsity_report", "explore", "--sparsity", "30%", "--open"]
    process = subprocess.Popen(
        line, cwd=folder, env=os.environ | {"TMPDIR": str(folder), "BROWSER": f"{browser} %s"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Tests that run behind another program may have been told to pass Ctrl-C over.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    yield process, folder, told
    process.terminate()
    process.wait(90)
    process.stdout.close()
    process.stderr.close()


def address_of(process):
    """The address that a running explorer prints, and its port."""
    line = process.stdout.readline()
    match = re.fullmatch(
        r"Explorer of demo: (http://127\.0\.0\.1:(\d+)/\?token=\S{20,}) \(Ctrl-C ends it\)\n", line
    )
    assert match, line or process.stderr.read()
    return match[1], int(match[2])


def redirect_to(address, folder, told):
    """The private file that leads the browser to an address."""
    (private,) = folder.glob("sparsity-report-*")
    assert private.stat().st_mode & 0o077 == 0
    redirect = Path(url2pathname(urlsplit(told.read_text()).path))
    assert redirect.parent == private
    assert redirect.stat().st_mode & 0o777 == 0o600
    assert f"url={address}" in redirect.read_text()
    return redirect


def check_ended(process, folder, port):
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0
    assert process.stderr.read() == ""
    assert not list(folder.glob("sparsity-report-*"))
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def test_a_page_is_served_and_leaves_nothing(running, chromium):
    process, folder, told = running
    address, port = address_of(process)
    command_of = psutil.Process(process.pid)
    wait_for(told.exists)
    assert {each.name() for each in command_of.children()} <= {"open"}  # the browser
    assert address.partition("token=")[2] not in " ".join(command_of.cmdline())
    redirect = redirect_to(address, folder, told)
    assert answered(address.partition("?")[0]) == 403
    page = chromium.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    # As a browser that is given the file, which leads across from another origin.
    page.goto(redirect.as_uri())
    page.wait_for_url(address)
    page.locator(".sv-map").wait_for()
    assert page.locator("h1").inner_text() == "demo"
    assert wrong == []
    answer = page.reload()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    page.close()
    wait_for(lambda: not list(folder.glob("sparsity-report-*")))  # once the browser was there
    check_ended(process, folder, port)


def wait_for(is_true):
    end = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_page_ends_with_what_started_it(tmp_path):
    script = (
        "import subprocess, sys, time\n"
        "run = subprocess.Popen([sys.executable, '-m', 'sparsity_report', 'explore'])\n"
        "print(run.pid, flush=True)\n"
        "run.wait()"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    line = [sys.executable, "-c", script]
    with subprocess.Popen(line, text=True, stdout=subprocess.PIPE, env=environment) as parent:
        explorer = psutil.Process(int(parent.stdout.readline()))
        assert "Ctrl-C" in parent.stdout.readline()
        assert not list(tmp_path.glob("sparsity-report-*"))
        parent.kill()
    explorer.wait(20)


def answered(address):
    """The status of an answer, not followed elsewhere."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    connection.close()
    return answer.status
