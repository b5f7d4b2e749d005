"""A real HTTP/1.1 file server on loopback, with ranges, tags and conditions: run as a script.

``python file_server.py FOLDER`` prints its port and serves until its stdin ends.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    folder: Path

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def _serve(self, *, body: bool) -> None:
        path = self.folder / unquote(urlsplit(self.path).path).lstrip("/")
        try:
            file = path.open("rb")
        except OSError:
            self._answer(404, b"no such file\n", {}, body=body)
            return
        with file:
            stat = os.fstat(file.fileno())
            tag = f'"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"'
            headers = {"Accept-Ranges": "bytes", "ETag": tag}
            headers["Last-Modified"] = formatdate(stat.st_mtime, usegmt=True)
            wanted = self.headers.get("If-Match")
            if wanted not in (None, "*", tag):
                self._answer(412, b"", headers, body=body)
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if self.headers.get("If-Range", tag) != tag:
                asked = None
            if asked is None:
                self._answer(200, stat.st_size, headers, body=False)
                if body:
                    self._send(file.fileno(), stat.st_size)
                return
            start = int(asked[1])
            stop = min(stat.st_size, int(asked[2]) + 1 if asked[2] else stat.st_size)
            if start >= stat.st_size:
                headers["Content-Range"] = f"bytes */{stat.st_size}"
                self._answer(416, b"", headers, body=body)
                return
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stat.st_size}"
            data = os.pread(file.fileno(), stop - start, start)
            self._answer(206, data, headers, body=body)

    def _send(self, file: int, nbytes: int) -> None:
        at = 0
        while at < nbytes:
            at += os.sendfile(self.connection.fileno(), file, at, min(1 << 18, nbytes - at))

    def _answer(
        self, status: int, content: bytes | int, headers: dict[str, str], *, body: bool
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        length = content if isinstance(content, int) else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if body and isinstance(content, bytes):
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Handler.folder = Path(sys.argv[1])
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
