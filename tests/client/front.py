"""The least of a server that a loader needs: tickets and the feed over HTTP, before engines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from splitpipe.client.http import Http
from splitpipe.client.loader import Options, RemoteLoader
from splitpipe.errors import NotFound, SplitpipeError, Unavailable
from splitpipe.server.feed.engines import Engines
from tests.server.feed.making import ITERATION, engines_in, job_of

__all__ = ["ITERATION", "Front", "fronted", "loader_at"]


class Front:
    """Engines behind a port of HTTP, all of which can be killed and come back."""

    def __init__(self, folder: Path, spec: dict[str, Any], told: dict[str, Any], **more: Any):
        self.folder, self.spec, self.told, self.more = folder, spec, told, more
        self.only: str | None = None
        self.instead: str | None = None  # where somebody else listens
        self.port = 0
        self._stack = contextlib.ExitStack()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.engines: Engines = self._stack.enter_context(engines_in(self.folder, **self.more))
        self.engines.start(job_of(self.spec, **self.told))
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"  # a connection for each: none is left to wait for

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                status, body = front.answer(self.path, self.rfile.read(length))
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.send_header("Content-Type", "application/json")
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            block_on_close = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        parsed = urlsplit(path)
        try:
            if parsed.path.endswith("/tickets"):
                asked = json.loads(body)
                asked["client"] = asked["client"] or ""
                told = self.engines.ticket(ITERATION, **asked)
                if self.instead is not None:
                    told.update(endpoints=[self.instead], server_key=None)
                elif self.only is not None:
                    told["endpoints"] = [
                        one for one in told["endpoints"] if one.startswith(self.only)
                    ]
                return 201, json.dumps(told).encode()
            query = {name: values[0] for name, values in parse_qs(parsed.query).items()}
            wait_s = min(float(query["wait_s"]), 0.5)
            return 200, self.engines.feed(ITERATION, query["link"], body, wait_s)
        except Unavailable as error:
            return 503, json.dumps({"detail": str(error)}).encode()
        except NotFound as error:
            return 404, json.dumps({"detail": str(error)}).encode()
        except SplitpipeError as error:
            return 400, json.dumps({"detail": str(error)}).encode()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._stack.close()

    def kill_engine(self) -> None:
        """SIGKILL to the engine; it is started again by the engines."""
        engine = self.engines._engines[ITERATION]
        pid = engine.process.pid
        os.kill(pid, signal.SIGKILL)

    def loader(self, **options: Any) -> RemoteLoader:
        return loader_at(self.url, **options)


def loader_at(url: str, *, state: Any = None, **options: Any) -> RemoteLoader:
    return RemoteLoader(Http(url, retry_s=5), ITERATION, Options(**options), state=state)


@contextlib.contextmanager
def fronted(
    folder: Path, spec: dict[str, Any] | None = None, *, more: Any = None, **told: Any
) -> Iterator[Front]:
    front = Front(folder, spec or {}, {"batches": 100, **told}, **(more or {}))
    try:
        yield front
    finally:
        front.stop()
