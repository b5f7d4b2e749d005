"""What huggingface_hub asks for: ``python -m tests.hub_server TOKEN`` prints its port.

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
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.loopback import Handler, serve

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


class Hub(Handler):
    def asked(self) -> None:
        self._serve(b"")

    def told(self, body: bytes) -> None:
        if self.command == "POST":
            self._serve(body)
        else:
            _repositories["me/" + self.path.rpartition("/")[2]] = {}
            self.answer(200, b"")

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
            self.answer(200, data)
            return
        start = int(asked[1])
        stop = min(len(data), int(asked[2]) + 1 if asked[2] else len(data))
        if start >= len(data):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        self.answer(206, data[start:stop], told)

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

    def _json(self, told: Any) -> None:
        self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code} if code else {}
        message = {401: "Invalid username or password."}.get(status, "Not found")
        self.answer(status, b"", {**headers, "X-Error-Message": message})


if __name__ == "__main__":
    serve(Hub)
    os._exit(0)
