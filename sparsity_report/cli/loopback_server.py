"""Server of one page for the browser of this machine, behind a token."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import BoundedSemaphore
from typing import Any

# Names of this machine; a page of a stranger reaches the server under another one.
_HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::\d{1,5})?", re.ASCII)
# Most connections at a time, and most seconds that one may wait.
_CONNECTIONS, _WAIT = 32, 30
_PARENT = os.getppid()
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class PageServer(ThreadingTCPServer):
    """A server of one page on 127.0.0.1; it holds no folder and reads no file.

    Parameters
    ----------
    page : str
    policy : str
        Content security policy of the page.

    Attributes
    ----------
    address : str
        Address of the page, which holds the token.
    """

    daemon_threads = True
    block_on_close = False
    timeout = 0.5
    request_queue_size = _CONNECTIONS

    def __init__(self, page: str, policy: str) -> None:
        self.page = page.encode()
        # Other sites may not frame the page.
        self.headers = {**_HEADERS, "Content-Security-Policy": f"{policy}; frame-ancestors 'none'"}
        self.path = f"/?token={secrets.token_urlsafe(24)}"
        self._free = BoundedSemaphore(_CONNECTIONS)
        self.has_answered = False
        super().__init__(("127.0.0.1", 0), _Request)
        self.address = f"http://127.0.0.1:{self.server_address[1]}{self.path}"

    def serve(self, fetched: Callable[[], None] | None = None) -> None:
        """Serve until the program that started this one ends; call `fetched` after an answer."""
        while os.getppid() == _PARENT:
            self.handle_request()
            if fetched and self.has_answered:
                fetched()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; close connections beyond the limit."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then make room for another connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over connections that the browser closed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Request(BaseHTTPRequestHandler):
    """One request: the page for the address with the token, else a status without a body."""

    server: PageServer
    timeout = _WAIT

    def do_GET(self) -> None:
        """Answer a request for the page."""
        hosts = self.headers.get_all("Host", [])
        is_known = len(hosts) == 1 and _HOST.fullmatch(hosts[0])
        # A browser names the origin of scripts and forms, and the use of a frame or an image.
        is_foreign = "Origin" in self.headers or (
            self.headers.get("Sec-Fetch-Dest", "document") != "document"
        )
        path, expected = self.path.encode(errors="replace"), self.server.path.encode()
        if is_known and not is_foreign and secrets.compare_digest(path, expected):
            self._answer(200, self.server.page)
            self.server.has_answered = True
        else:
            self._answer(403)

    def send_error(self, code: int, *_: Any) -> None:
        """Refuse a request that is no GET or is damaged."""
        self._answer(405 if code == 501 else code)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Return the name of the server, without versions."""
        return "sparsity-report"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""
