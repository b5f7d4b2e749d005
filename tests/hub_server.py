"""What huggingface_hub asks for: ``python tests/hub_server.py TOKEN`` prints its port.

An imitation of our own, of repositories of data sets in memory: no more than the requests that
`HfFileSystem` makes, as its source has them, and none of the network of files behind the real
hub. Lives until its stdin ends.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = sys.argv[1] if len(sys.argv) > 1 else ""
_repositories: dict[str, dict[str, bytes]] = {}
_lock = threading.Lock()


def file_entry(path: str, data: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return {"type": "file", "path": path, "size": len(data), "oid": oid}


def tree(files: dict[str, bytes], below: str, recursive: bool) -> list[dict[str, Any]] | None:
    """What lies in a folder; ``None`` if there is none."""
    start = f"{below}/" if below else ""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(path for path in files if path.startswith(start)):
        names = path.removeprefix(start).split("/")
        for depth in range(1, len(names)):
            folder = start + "/".join(names[:depth])
            entry = {"type": "directory", "path": folder, "size": 0, "oid": folder}
            if recursive or depth == 1:
                found[folder] = entry
        if recursive or len(names) == 1:
            found[path] = file_entry(path, files[path])
    return list(found.values()) if found or not below else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:
        self._body()
        _repositories["me/" + self.path.rpartition("/")[2]] = {}
        self._answer(200, b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def _serve(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        asked = re.fullmatch(
            r"(?:/api)?/datasets/([^/]+/[^/]+)(?:/([a-z-]+)/([^/]+)(?:/(.*))?)?", parts.path
        )
        if asked is None:
            self._refuse(404, "")
            return
        files = _repositories.get(asked[1])
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not known:
            self._refuse(401, "")
        elif files is None:
            self._refuse(404, "RepoNotFound")
        elif asked[3] not in (None, "main"):
            self._refuse(404, "RevisionNotFound")
        else:
            work = getattr(self, "_" + (asked[2] or "revision").replace("-", "_"))
            with _lock:
                work(files, unquote(asked[4] or ""), parse_qs(parts.query), body)

    def _revision(self, files: Any, path: str, query: Any, body: bytes) -> None:
        self._json({"id": "me/x", "sha": "0" * 40, "tags": [], "siblings": []})

    def _paths_info(self, files: Any, path: str, query: Any, body: bytes) -> None:
        wanted = parse_qs(body.decode()).get("paths", [])
        found = [file_entry(one, files[one]) for one in wanted if one in files]
        folders = [one for one in wanted if one not in files and tree(files, one, False)]
        found += [{"type": "directory", "path": one, "size": 0, "oid": one} for one in folders]
        self._json(found)

    def _tree(self, files: Any, path: str, query: Any, body: bytes) -> None:
        found = tree(files, path, query.get("recursive", [""])[0].lower() == "true")
        if found is None:
            self._refuse(404, "EntryNotFound")
        else:
            self._json(found)

    def _resolve(self, files: Any, path: str, query: Any, body: bytes) -> None:
        if path not in files:
            self._refuse(404, "EntryNotFound")
            return
        data = files[path]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, data)
            return
        start = int(asked[1])
        stop = min(len(data), int(asked[2]) + 1 if asked[2] else len(data))
        if start >= len(data):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        self._answer(206, data[start:stop], told)

    def _preupload(self, files: Any, path: str, query: Any, body: bytes) -> None:
        wanted = json.loads(body)["files"]
        told = [
            {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in wanted
        ]
        self._json({"files": told})

    def _commit(self, files: Any, path: str, query: Any, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self._json(
            {
                "commitUrl": "https://huggingface.co/datasets/me/x/commit/0",
                "commitOid": "0" * 40,
                "success": True,
            }
        )

    # -- answers

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, told: Any) -> None:
        self._answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code} if code else {}
        message = {401: "Invalid username or password."}.get(status, "Not found")
        self._answer(status, b"", {**headers, "X-Error-Message": message})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is nothing to tell of."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)
