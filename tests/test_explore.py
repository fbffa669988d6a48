"""``sparsity-report explore``: the explorer as a page, for this machine, until Ctrl-C."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import psutil
import pytest
from helpers import command

from sparsity_report.cli import explore_command


def test_what_it_needs_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(
        explore_command, "find_spec", lambda name: None if name == "voila" else name
    )
    run = command("explore", "--kernel")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "run pip install voila ipykernel" in run.stderr


@pytest.fixture
def running(tmp_path, request):
    """A running explorer, its temporary folder, and the command line of its browser."""
    told = tmp_path / "browser"
    browser = tmp_path / "open"
    browser.write_text(f'#!/bin/sh\nprintf %s "$*" > {told}\n')
    browser.chmod(0o700)
    folder = tmp_path / "temporary"
    folder.mkdir()
    line = [sys.executable, "-m", "sparsity_report", "explore", "--sparsity", "30%", "--open"]
    process = subprocess.Popen(
        [*line, *getattr(request, "param", [])],
        cwd=folder, env=os.environ | {"TMPDIR": str(folder), "BROWSER": f"{browser} %s"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Tests that run behind another program may have been told to pass Ctrl-C over.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    yield process, folder, told
    process.terminate()
    process.wait(90)
    process.stdout.close()
    process.stderr.close()


WITH_KERNEL = pytest.mark.parametrize("running", [["--kernel"]], indirect=True, ids=["kernel"])


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


def test_a_page_needs_no_kernel_and_leaves_nothing(running, chromium):
    process, folder, told = running
    address, port = address_of(process)
    command_of = psutil.Process(process.pid)
    assert {each.name() for each in command_of.children()} <= {"open"}  # the browser
    assert address.partition("token=")[2] not in " ".join(command_of.cmdline())
    wait_for(told.exists)
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


def answered(address, **headers):
    """The status of an answer, not followed elsewhere."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
    answer = connection.getresponse()
    connection.close()
    return answer.status


def check_kernel_answers(page):
    """Move the slider, and let the kernel save the level as variants."""
    viewer = page.locator(".sparsity-viewer", has=page.locator(".sv-add"))
    viewer.locator(".sv-slider").focus(timeout=90_000)
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    viewer.locator("[data-cell]").first.click()
    viewer.locator(".sv-add").click()
    saved = viewer.locator(".sv-variant option", has_text="Masked35")
    saved.wait_for(state="attached", timeout=30_000)


@WITH_KERNEL
def test_it_serves_this_machine_and_ends_with_nothing_left(running, chromium):
    process, folder, told = running
    address, port = address_of(process)
    token = address.partition("token=")[2]
    with urllib.request.urlopen(address.partition("?")[0], timeout=60) as answer:
        assert "/login" in answer.geturl()  # who does not know the address sees nothing
    redirect_to(address, folder, told)
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
    check_kernel_answers(page)
    assert complaints == []
    below = psutil.Process(process.pid).children(recursive=True)
    assert token not in " ".join(word for each in below for word in each.cmdline())
    kernel = next(each for each in below if "ipykernel_launcher" in each.cmdline())
    connection = Path(kernel.cmdline()[-1])
    assert connection.parent.stat().st_mode & 0o077 == 0
    assert json.loads(connection.read_text())["transport"] == "ipc"
    # The page of a stranger has the cookie, but not the token.
    (name,) = re.findall(r'"?kernelId"?: "([^"]+)"', answer.text())
    channels = f"http://127.0.0.1:{port}/api/kernels/{name}/channels"
    cookies = "; ".join(f"{each['name']}={each['value']}" for each in page.context.cookies())
    socket_of = {
        "Cookie": cookies, "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }  # fmt: skip
    assert answered(channels, **socket_of, Origin=f"http://127.0.0.1:{port}") == 101
    assert answered(channels, **socket_of, Origin="http://example.org") == 403
    assert answered(address, Host="example.org") == 403
    page.close()
    check_ended(process, folder, port)


@WITH_KERNEL
def test_it_ends_with_its_parent(running):
    process, folder, _ = running
    address = process.stdout.readline().split()[3]
    with urllib.request.urlopen(address, timeout=120) as answer:
        answer.read()
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) == 2  # server and kernel
    sockets = Path(below[1].cmdline()[-1]).parents[1]
    assert sockets.is_dir()
    process.kill()
    assert psutil.wait_procs(below, timeout=60)[1] == []
    assert not list(folder.glob("sparsity-report-*"))
    assert not sockets.exists()
