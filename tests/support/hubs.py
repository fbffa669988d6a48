"""A Hub of folders on the loopback: what `huggingface_hub` and streaming ask for, and faults.

As on the Hub, large files are sent by another server, to which a signature leads that changes every
time; it knows neither commits nor etags.
"""

import hashlib
import json
import re
import sys
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, quote, unquote, urlsplit

MAIN, CONVERTED, LATER = "a" * 40, "b" * 40, "c" * 40
# What is sent at a time.
PIECE = 2**16


class Hub:
    """Repositories by name, each a folder; conversions are folders at a pull request.

    Attributes
    ----------
    repositories, conversions, later : dict
        Folders at three commits; `moved` are those whose main branch is at the last.
    served : list of str
        Files that were asked for as a whole.
    asked : list of tuple
        Path, first and last byte of each range of a large file.
    sent : int
        Bytes of large files.
    held : dict
        Content of files that are not read again for each request.
    direct : set of str
        Large files that the Hub sends itself.
    shown : dict
        What the page of a repository says besides, by its name.
    claimed : str or None
        The commit that all files are said to be of.
    faults : list
        For each request of a large file: None, a status, or a function of request, content, first
        and last byte that answers.
    """

    def __init__(self, monkeypatch, cache):
        self.repositories, self.conversions, self.later = {}, {}, {}
        self.gated, self.moved, self.served = set(), set(), []
        self.asked, self.sent, self.faults, self.tokens = [], 0, [], []
        self.signatures, self.held, self.direct, self.claimed = count(), {}, set(), None
        self.front, self.store = (_Server(("127.0.0.1", 0), _Handler) for _ in "12")
        self.front.answer, self.store.answer = self.answer, self.send
        self.cache = cache
        url = f"http://127.0.0.1:{self.front.server_port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        for name, value in {
            "ENDPOINT": url,
            "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(cache),
            "HF_TOKEN_PATH": str(cache / "token"),
        }.items():  # fmt: skip
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)

    def __enter__(self):
        for server in (self.front, self.store):
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        from huggingface_hub import close_session

        close_session()
        for server in (self.front, self.store):
            server.shutdown()
            server.server_close()

    def kept(self):
        """Names of all files in the cache of this machine."""
        return sorted({file.name for file in self.cache.rglob("*") if file.is_file()})

    def answer(self, request):
        """What the Hub itself says."""
        parts = [unquote(part) for part in urlsplit(request.path).path.split("/")[1:]]
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        if len(parts) < 3:  # of the library itself
            return _reply(request, 404, b"")
        name, (action, *rest) = "/".join(parts[:2]), parts[2:]
        if name not in self.repositories:
            return _reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        if name in self.gated:
            return _reply(request, 403, b"", {"X-Error-Code": "GatedRepo"})
        revision, path = rest[0], "/".join(rest[1:])
        heads = {"main": LATER if name in self.moved else MAIN, "refs/pr/9": CONVERTED}
        commit = heads.get(revision, revision)
        folders = {MAIN: self.repositories, CONVERTED: self.conversions, LATER: self.later}
        folder = folders.get(commit, {}).get(name)
        if folder is None:
            return _reply(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        if action == "revision":
            info = {"id": name, "sha": commit}
            return _reply(request, 200, json.dumps(info).encode())
        if action == "tree":
            return _reply(request, 200, json.dumps(_tree(folder)).encode())
        return self._resolve(request, folder / path, path, commit)

    def _resolve(self, request, file, path, commit):
        if not file.is_file():
            return _reply(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
        content = self.held.get(file) or file.read_bytes()
        told = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": self.claimed or commit}
        asks_part = "Range" in request.headers
        if asks_part and self.faults and isinstance(self.faults[0], int):
            return _reply(request, self.faults.pop(0), b"", {"Retry-After": "7"})
        if path in self.direct and asks_part:
            first, last = _part(request)
            self.asked.append((path, first, last))
            return self.send_part(request, content, first, min(last, len(content) - 1), **told)
        if not path.endswith((".safetensors", ".gguf")):
            if request.command == "GET":
                self.served.append(path)
            return _reply(request, 200, content, told)
        signature = next(self.signatures)
        # Another host, to which no token may be sent.
        store = f"http://localhost:{self.store.server_port}"
        told |= {
            "X-Linked-Etag": told["ETag"], "X-Linked-Size": str(len(content)),
            "ETag": '"of the redirection"',
            "Location": f"{store}{quote(str(file))}?of={quote(path)}&Signature={signature}",
        }  # fmt: skip
        return _reply(request, 302, b"", told)

    def send(self, request):
        """What the other server sends: a file, or part of it."""
        where = urlsplit(request.path)
        self.tokens.append(request.headers.get("Authorization"))
        file, (path,) = Path(unquote(where.path)), parse_qs(where.query)["of"]
        content = self.held.get(file) or file.read_bytes()
        if "Range" not in request.headers:
            self.served.append(path)
            return _reply(request, 200, content)
        first, last = _part(request)
        self.asked.append((path, first, last))
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            return fault(request, content, first, last)
        if first >= len(content):
            return _reply(request, 416, b"")
        return self.send_part(request, content, first, min(last, len(content) - 1))

    def send_part(self, request, content, first, last, stop=None, **headers):
        """Send bytes from `first` to `last`; before `stop` the connection is lost."""
        place = f"bytes {first}-{last}/{len(content)}"
        told = {"Content-Range": place, "ETag": '"of the store"', **headers}
        _reply(request, 206, b"", {**told, "Content-Length": str(last + 1 - first)})
        for begin in range(first, stop or last + 1, PIECE):
            piece = content[begin : min(begin + PIECE, stop or last + 1)]
            self.sent += len(piece)
            request.wfile.write(piece)
        request.close_connection = stop is not None


class _Server(ThreadingHTTPServer):
    def handle_error(self, *where):
        # A client that leaves is no news.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*where)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.answer(self)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@lru_cache(maxsize=2)
def _digest(content):
    """Of bytes that are held the digest is taken once."""
    return hashlib.sha1(content).hexdigest()


def _part(request):
    assert request.headers["Accept-Encoding"] == "identity"
    return map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["Range"]).groups())


def _tree(folder):
    return [
        {
            "type": "file", "path": file.relative_to(folder).as_posix(),
            "size": file.stat().st_size, "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]  # fmt: skip


def _reply(request, status, content, headers=()):
    request.send_response(status)
    for key, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)
