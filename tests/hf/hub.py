"""A hub on this machine: what huggingface_hub asks for when a repository is made, filled and read."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory: {repository: {name: content}}."""

    protocol_version = "HTTP/1.1"
    repositories: dict[str, dict[str, bytes]]
    asked: list[str]

    def do_POST(self) -> None:
        body = self._body()
        self.asked.append(f"POST {self.path}")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            self.repositories.setdefault(name, {})
            return self._json({"url": f"{self._root()}/{name}", "name": name, "id": name})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:  # every file may come inside of the commit
            files = [each["path"] for each in json.loads(body)["files"]]
            return self._json({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    assert line["value"]["encoding"] == "base64"
                    self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self._json({"commitUrl": f"{self._root()}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        return self._json({"error": "no such page"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            return self._json({"name": "user", "type": "user", "orgs": []})
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if name not in self.repositories:
                return self._missing("RepoNotFound")
            siblings = [{"rfilename": each, "path": each, "type": "file"} for each in self.repositories[name]]
            if "tree" in parts:
                return self._json([{**each, "size": 1, "oid": "0"} for each in siblings])
            return self._json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        name, _, file = path.strip("/").partition("/resolve/")
        content = self.repositories.get(name, {}).get(file.partition("/")[2])
        if content is None:
            return self._missing("EntryNotFound" if name in self.repositories else "RepoNotFound")
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        return self._end(content, "application/octet-stream")

    def _missing(self, kind: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", kind)
        self.send_header("X-Repo-Commit", COMMIT)
        self._end(json.dumps({"error": kind}).encode(), "application/json")

    def _json(self, content: object, status: int = 200) -> None:
        self.send_response(status)
        self._end(json.dumps(content).encode(), "application/json")

    def _end(self, content: bytes, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _root(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def log_message(self, *args: object) -> None:
        """Nothing on stderr."""


@contextmanager
def hub() -> Iterator[tuple[str, dict[str, dict[str, bytes]], list[str]]]:
    """Its address, its repositories, and what was asked of it."""
    handler = type("OneHub", (Hub,), {"repositories": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.repositories, handler.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
