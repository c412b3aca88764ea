"""A hub on this machine that takes what ``huggingface_hub`` sends it: accounts, repositories, commits; and
gives files, until its network is cut."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "a1B2" * 9
OWNER = "alice"


class FakeHub:
    """Serves until ``close``. Files come to ``repositories``, by name and path, and are given from there."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        """Each request's method and path."""
        self.broken = False
        """Whether commits fail."""
        self.cut_at: tuple[str, float] | None = None
        """A file, and the share of it after which the network is cut, for good: until ``mend``."""
        self.gives_files_alone: int | None = None
        """What every question but one for a file is answered, as a mirror does or a limit of rates."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def do_POST(self) -> None:
                hub.answer(self)

        self._handler = Handler
        self._serve(0)

    def _serve(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def mend(self) -> None:
        """Bring a network back that was cut, at the same address."""
        port = self._server.server_port
        self.close()
        self.cut_at = None
        self._serve(port)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request of the hub's API."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = request.path.partition("?")[0]
        if "/resolve/" in path:
            return self._give(request, path)
        self.asked.append(f"{request.command} {path}")
        if self.gives_files_alone is not None:
            return self._say(request, self.gives_files_alone, {"error": "no"})
        public = request.command == "GET" and self.private.get("/".join(path.split("/")[3:5])) is False
        if not public and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._say(request, 401, {"error": "Invalid username or password."})
        if path == "/api/whoami-v2":
            return self._say(request, 200, {"type": "user", "name": OWNER, "orgs": []})
        if path == "/api/validate-yaml":
            return self._say(request, 200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            told = json.loads(body)
            owner = told.get("organization") or OWNER
            if owner != OWNER:
                return self._say(request, 403, {"error": f"You don't have the rights under {owner}"})
            name = f"{owner}/{told['name']}"
            private = told.get("private") or told.get("visibility") == "private"
            self.repositories[name], self.private[name] = {}, private is True
            return self._say(request, 200, {"url": f"{self.endpoint}/{name}", "id": name, "name": name})
        _, _, _, owner, repository, *rest = path.split("/")
        name = f"{owner}/{repository}"
        if name not in self.repositories:
            return self._say(request, 404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
        if rest[:1] == ["preupload"]:
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            return self._say(request, 200, {"files": [f | {"shouldIgnore": False} for f in files]})
        if rest[:1] == ["commit"]:
            return self._commit(request, name, body)
        if rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "oid": _etag(content), "size": len(content), "path": file}
                for file, content in self.repositories[name].items()
            ]
            return self._say(request, 200, tree)
        told = {"id": name, "private": self.private[name], "sha": "0" * 40, "siblings": []}
        return self._say(request, 200, told)

    def _commit(self, request: BaseHTTPRequestHandler, name: str, body: bytes) -> None:
        if self.broken:
            return self._say(request, 507, {"error": "no room left"})
        for line in filter(None, body.split(b"\n")):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "deletedFile":
                del self.repositories[name][value["path"]]
            if entry["key"] == "file":
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])
        told = {
            "success": True,
            "commitOid": "0" * 40,
            "commitUrl": f"{self.endpoint}/{name}/commit/{'0' * 40}",
        }
        return self._say(request, 200, told)

    def _give(self, request: BaseHTTPRequestHandler, path: str) -> None:
        """One file of a repository."""
        name, _, rest = path.strip("/").partition("/resolve/")
        file = rest.partition("/")[2]
        content = self.repositories.get(name, {}).get(file)
        if content is None:
            return self._say(request, 404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
        first = int((request.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        request.send_response(206 if first else 200)
        request.send_header("ETag", f'"{_etag(content)}"')
        request.send_header("X-Repo-Commit", "0" * 40)
        request.send_header("Content-Length", str(len(content) - first))
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        if request.command == "HEAD":
            return None
        self.asked.append(f"GET {path}")
        end = len(content)
        if self.cut_at is not None and self.cut_at[0] == file:
            end = int(self.cut_at[1] * end)
            self.close()
        request.wfile.write(content[first:end])
        return None

    @staticmethod
    def _say(
        request: BaseHTTPRequestHandler, status: int, value: Any, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(value).encode()
        request.send_response(status)
        for key, text in {"Content-Type": "application/json", **(headers or {})}.items():
            request.send_header(key, text)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
