"""What the HTTP servers of tests have in common, each a program of its own on loopback.

Responsible for: `Handler`, which answers; `serve`, which says the port and serves until stdin ends.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Handler", "serve"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self.asked()

    def do_GET(self) -> None:
        self.asked()

    def do_PUT(self) -> None:
        self.told(self._body())

    def do_POST(self) -> None:
        self.told(self._body())

    def asked(self) -> None:
        """Answer a GET, or a HEAD."""
        raise NotImplementedError

    def told(self, body: bytes) -> None:
        """Answer a PUT, or a POST."""
        self.answer(501, b"")

    def answer(
        self, status: int, content: bytes | int, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole response; of a body whose length alone is given, only the head."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        length = content if isinstance(content, int) else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if isinstance(content, bytes) and self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is nothing to tell of."""


def serve(handler: type[Handler]) -> None:
    """Serve on a free port, which is printed, for as long as stdin is open."""
    server = _Server(("127.0.0.1", 0), handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
