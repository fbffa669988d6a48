"""A Hub of folders on the loopback: what `huggingface_hub` asks for, and nothing else."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

MAIN, CONVERTED = "a" * 40, "b" * 40


class Hub:
    """Repositories by name, each a folder; conversions are folders with safetensors for one."""

    def __init__(self, monkeypatch, cache):
        self.repositories, self.conversions, self.gated, self.served = {}, {}, set(), []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.cache = cache
        url = f"http://127.0.0.1:{self.server.server_port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for name, value in {
            "ENDPOINT": url,
            "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(cache),
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)

    def __enter__(self):
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        parts = [unquote(part) for part in urlsplit(request.path).path.split("/")[1:]]
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        name, (action, *rest) = "/".join(parts[:2]), parts[2:]
        if name not in self.repositories:
            return _reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        if name in self.gated:
            return _reply(request, 403, b"", {"X-Error-Code": "GatedRepo"})
        if action == "discussions":
            return _reply(request, 200, json.dumps(self._discussions(name)).encode())
        revision, path = rest[0], "/".join(rest[1:])
        commit = {"main": MAIN, "refs/pr/9": CONVERTED}.get(revision, revision)
        folder = {MAIN: self.repositories, CONVERTED: self.conversions}.get(commit, {}).get(name)
        if folder is None:
            return _reply(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        if action == "revision":
            return _reply(request, 200, json.dumps({"id": name, "sha": commit}).encode())
        if action == "tree":
            return _reply(request, 200, json.dumps(_tree(folder)).encode())
        if not (folder / path).is_file():
            return _reply(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
        if request.command == "GET":
            self.served.append(path)
        content = (folder / path).read_bytes()
        etag = hashlib.sha1(content).hexdigest()
        return _reply(request, 200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def _discussions(self, name):
        offer = {
            "num": 9, "title": "Adding `safetensors` variant of this model", "isPullRequest": True,
            "author": {"name": "SFconvertbot"}, "repo": {"name": name, "type": "model"},
            "status": "open", "createdAt": "2023-01-01T00:00:00.000Z",
        }  # fmt: skip
        offers = [offer] if name in self.conversions else []
        return {"discussions": offers, "count": len(offers), "start": 0}


def _tree(folder):
    return [
        {
            "type": "file",
            "path": file.relative_to(folder).as_posix(),
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]


def _reply(request, status, content, headers=()):
    request.send_response(status)
    for key, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)
