"""A model hub on this machine: the few calls that huggingface_hub's uploads and downloads make, over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_right"
OWNER = "somebody"


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory: id to branch to path to content. ``TOKEN`` may write what ``OWNER`` owns.

    Attributes:
        private: ids that were made private.
        commits: how many there were.
        status: what every call is answered with, None to serve.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.commits = 0
        self.status: int | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def revision(files: dict[str, bytes]) -> str:
    """A commit's id: 40 letters for what the branch holds."""
    return hashlib.sha1(b"".join(key.encode() + files[key] for key in sorted(files))).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        if self.server.status is not None:
            return self._json({"error": "no"}, self.server.status)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid user token"}, 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        _, _, _, owner, name, call, branch = path.split("/")
        repo = self.server.repos.get(f"{owner}/{name}")
        if repo is None:
            return self._json({"error": "Repository not found"}, 404)
        branch = unquote(branch)
        if call == "branch":
            if branch in repo:
                return self._json({"error": "Reference already exists"}, 409)
            repo[branch] = dict(repo["main"])
            return self._json({})
        if call == "preupload":
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in _read(body)]
            return self._json({"files": files})
        assert call == "commit"
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                repo[branch][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del repo[branch][line["value"]["path"]]
        self.server.commits += 1
        oid = revision(repo[branch])
        return self._json({"commitUrl": f"{self.server.endpoint}/{owner}/{name}/commit/{oid}", "commitOid": oid})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != OWNER:
            return self._json({"error": "You don't have the rights"}, 403)
        there = name in self.server.repos
        self.server.repos.setdefault(name, {"main": {".gitattributes": b"*.safetensors filter=lfs\n"}})
        if asked.get("visibility") == "private":
            self.server.private.add(name)
        return self._json({"url": f"{self.server.endpoint}/{name}"}, 409 if there else 200)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.server.status is not None:
            return self._json({"error": "no"}, self.server.status)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            files = self._files(found[1], found[2] or "main")
            return self._missing() if files is None else self._json({"id": found[1], "sha": revision(files)})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            files = self._files(found[1], found[2])
            assert files is not None
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self._json(listed)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        files = found and self._files(found[1], found[2])
        if not found or not files or found[3] not in files:
            return self._missing()
        content = files[found[3]]
        etag = hashlib.sha1(content).hexdigest()
        return self._send(content, 200, {"ETag": f'"{etag}"', "X-Repo-Commit": found[2]})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _files(self, name: str, wanted: str) -> dict[str, bytes] | None:
        branches = self.server.repos.get(name, {})
        by_commit = {revision(files): files for files in branches.values()}
        return branches.get(wanted) or by_commit.get(wanted)

    def _missing(self) -> None:
        self._send(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _read(body: bytes) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = json.loads(body)["files"]
    return files


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    """A hub that huggingface_hub talks to while the context is open, as if the environment had named it."""
    from huggingface_hub import constants

    hub = FakeHub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    # These are read from the environment when the library is imported.
    for name, value in (
        ("ENDPOINT", hub.endpoint),
        ("HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_CACHE", str(cache)),
        ("HF_TOKEN_PATH", str(cache / "token")),
    ):
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
