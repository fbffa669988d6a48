"""The server of one page: who does not know its address, or comes from elsewhere, gets nothing."""

import os
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from sparsity_report.cli import loopback_server
from sparsity_report.cli.loopback_server import PageServer

PAGE = "<!DOCTYPE html><p>é</p>"
POLICY = "default-src 'none'"


@pytest.fixture
def server():
    with PageServer(PAGE, POLICY) as server:
        answering = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        answering.start()
        yield server
        server.shutdown()


def spoken(server, text):
    """The whole answer to bytes sent through a socket."""
    with socket.create_connection(server.server_address, timeout=10) as connection:
        connection.sendall(text.encode("latin-1"))
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def asked(server, *headers, path=None, method="GET", host="127.0.0.1"):
    """Status, headers and body of the answer to a request."""
    path = server.path if path is None else path
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
    top, _, body = spoken(server, "\r\n".join([*lines, "", ""])).partition(b"\r\n\r\n")
    status, *rows = top.decode().split("\r\n")
    return int(status.split()[1]), dict(row.split(": ", 1) for row in rows), body


def test_its_address_gives_the_page(server):
    parts = urlsplit(server.address)
    assert (parts.hostname, parts.port) == server.server_address
    assert len(parts.query.removeprefix("token=")) >= 32
    status, headers, body = asked(server, host=parts.netloc)
    assert status == 200
    assert body.decode() == PAGE
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Server"] == "sparsity-report"
    navigation = ("Sec-Fetch-Dest: document", "Sec-Fetch-Site: cross-site")
    assert asked(server, *navigation)[0] == 200  # from the private file
    assert asked(server, host="localhost:1")[0] == 200  # through a tunnel
    with PageServer(PAGE, POLICY) as other:
        assert other.path != server.path


PATHS = ["/", "/?token=", "/?token=é", "/index.html", "/favicon.ico", "*", "/../../etc/passwd",
         "/%2e%2e/etc/passwd", "http://127.0.0.1/", "/" + "a" * 60_000]  # fmt: skip


def refused(answer):
    """Return the status of an answer that shows nothing."""
    status, headers, body = answer
    assert body == b""
    assert headers["Content-Security-Policy"].startswith(POLICY)
    assert headers["Cache-Control"] == "no-store"
    return status


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_other_addresses_show_nothing(server, path):
    assert refused(asked(server, path=path)) == 403


def test_addresses_beside_its_own_show_nothing(server):
    for path in (server.path[:-1], server.path + "x", server.path + "&a=b", server.path.upper()):
        assert refused(asked(server, path=path)) == 403
    for path in (f"/x/..{server.path}", f"http://127.0.0.1{server.path}", f"{server.path}#x"):
        assert refused(asked(server, path=path)) == 403


@pytest.mark.parametrize(
    "host",
    ["example.org", "127.0.0.1.example.org", "localhost.example.org", "127.0.0.1@example.org",
     "127.0.0.2", "[::1]", "", "127.0.0.1:", "127.0.0.1:80 x", "127.0.0.1\r\nHost: example.org"],
)  # fmt: skip
def test_other_names_of_the_host_show_nothing(server, host):
    assert refused(asked(server, host=host)) == 403


@pytest.mark.parametrize(
    "header",
    ["Origin: http://example.org", "Origin: null", "Origin: http://127.0.0.1",
     "Sec-Fetch-Dest: script", "Sec-Fetch-Dest: iframe", "Sec-Fetch-Dest: image",
     "Sec-Fetch-Dest: empty"],
)  # fmt: skip
def test_requests_of_other_pages_show_nothing(server, header):
    assert refused(asked(server, header)) == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "get"])
def test_it_only_gives(server, method):
    assert refused(asked(server, method=method)) == 405


@pytest.mark.parametrize(
    "text",
    ["\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\x00\r\n\r\n",
     "GET / HTTP/1.1\r\n" + "A: b\r\n" * 200 + "\r\n", "GET /" + "a" * 70_000 + "\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: " + "a" * 70_000 + "\r\n\r\n"],
    ids=range(7),
)  # fmt: skip
def test_damaged_requests_show_nothing_and_stop_nothing(server, text, capfd):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loopback_server._Request, "timeout", 0.2)
        try:
            answer = spoken(server, text)
        except ConnectionResetError:  # closed before everything was read
            answer = b""
    assert PAGE.encode() not in answer
    assert asked(server)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_connections_that_wait_keep_no_others_out(server, monkeypatch):
    monkeypatch.setattr(loopback_server._Request, "timeout", 0.5)
    before = threading.active_count()
    idle = [socket.create_connection(server.server_address, timeout=10) for _ in range(200)]
    end = time.monotonic() + 20
    while time.monotonic() < end:
        assert threading.active_count() - before <= loopback_server._CONNECTIONS
        try:
            if asked(server)[0] == 200:
                break
        except (ConnectionError, IndexError, ValueError):
            time.sleep(0.05)
    else:
        raise AssertionError("no answer")
    for connection in idle:
        connection.close()
    assert asked(server)[2].decode() == PAGE


def test_it_ends_with_the_program_that_started_it(monkeypatch):
    with PageServer(PAGE, POLICY) as server:
        seen = []
        serving = threading.Thread(target=server.serve, args=(lambda: seen.append(1),))
        serving.start()
        assert asked(server, path="/")[0] == 403
        assert seen == []
        assert asked(server)[0] == 200
        serving.join(0.2)
        assert serving.is_alive()
        monkeypatch.setattr(os, "getppid", lambda: 1)
        serving.join(5)
        assert not serving.is_alive()
        assert seen
