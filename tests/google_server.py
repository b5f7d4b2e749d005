"""A server of Google's storage, for tests: ``python -m tests.google_server`` prints its port.

It is the package gcp-storage-emulator, which knows no conditions and no rights. What is added here,
as the service documents it: ``ifGenerationMatch`` (412), ranges behind the end (416), objects of no
bytes, and a bucket named ``forbidden`` (403). Lives until its stdin ends.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.storage import Storage

_asked = threading.local()
_create_file, _handle = Storage.create_file, server.Router.handle
_read_data = server._read_data


class Unfit(Exception):
    """There is another generation."""


def found(storage: Storage, bucket: str, name: str) -> Any:
    try:
        return storage.get_file_obj(bucket, name)
    except NotFound:
        return None


def create_file(self: Storage, bucket: str, name: str, *more: Any) -> Any:
    wanted = getattr(_asked, "generation", None)
    there = found(self, bucket, name)
    if wanted is not None and wanted != ("0" if there is None else there["generation"]):
        raise Unfit
    return _create_file(self, bucket, name, *more)


def refusal(router: server.Router, path: str, query: dict[str, list[str]]) -> int:
    """The status of what is not answered by the package; 0 for all else."""
    place = re.search(r"/b/([^/]+)(?:/o/(.+))?", path)
    if place is None:
        return 0
    if place[1] == "forbidden":
        return 403
    asks = router._request_handler
    there = found(asks.storage, place[1], unquote(place[2])) if place[2] else None
    if there is None or query.get("alt") != ["media"]:
        return 0
    if query.get("ifGenerationMatch", [there["generation"]]) != [there["generation"]]:
        return 412
    begins = re.match(r"bytes=(\d+)-", asks.headers.get("Range", ""))
    return 416 if begins is not None and int(begins[1]) >= int(there["size"]) else 0


def handle(self: server.Router, method: str) -> None:
    parts = urlsplit(self._request_handler.path)
    query = parse_qs(parts.query)
    _asked.generation = query.get("ifGenerationMatch", [None])[0]
    status = refusal(self, parts.path, query)
    if not status:
        try:
            _handle(self, method)
        except Unfit:
            status = 412
    if status:
        body = json.dumps({"error": {"code": status, "message": "refused"}}).encode()
        self._request_handler.send_response(status)
        self._request_handler.send_header("Content-Length", str(len(body)))
        self._request_handler.end_headers()
        self._request_handler.wfile.write(body)


def read_data(asks: Any, query: dict[str, list[str]]) -> Any:
    data = _read_data(asks, query)
    return b"" if data is None and query.get("uploadType") == ["media"] else data


def main() -> None:
    server._read_data = read_data
    Storage.create_file, server.Router.handle = create_file, handle
    made = server.create_server("127.0.0.1", 0, in_memory=True)
    made.start()
    print(made._api._httpd.server_address[1], flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
