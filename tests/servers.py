"""Real servers for tests and benchmarks: files over HTTP and SFTP, and S3.

Responsible for: starting each as a process of its own on loopback, on a free port, and ending it by
its pid. As context managers::

    with FileServer(folder) as server:                     # server.url
    with S3Server() as server:                             # server.url, server.options
        server.create_bucket("data")
        open_store("s3://data/x", storage_options=server.options)
    with FaultProxy(server.url, latency_s=0.02) as proxy:  # splitpipe.testing.faults.proxy
        server.options_at(proxy.url)
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_S = 120.0


class _Server:
    """A process that is ended on leaving."""

    url: str
    _process: subprocess.Popen[str]

    def _begin(self, name: str, *more: str, flags: Sequence[str] = (), quiet: bool = False) -> int:
        """Start the program of that name in this folder, which says its port."""
        self._process = subprocess.Popen(
            [sys.executable, *flags, "-m", f"tests.{name}", *more],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
        )
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        process = self._process
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        process.terminate()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class FileServer(_Server):
    """The files of a folder over HTTP, with ranges, ETags and If-Match; read only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        port = self._begin("file_server", str(folder.absolute()), flags=["-S"])
        self.url = f"http://127.0.0.1:{port}"


class SftpServer(_Server):
    """The files of a folder over SFTP (paramiko's server), also to be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = self._begin("sftp_server", str(folder.absolute()))
        self.url = "sftp://127.0.0.1"

    @property
    def options(self) -> dict[str, Any]:
        """The ``storage_options`` that lead here."""
        return {"port": self.port, "username": "tester", "password": "a-test-password"}


# Waits for its stdin's end in a thread, so that it never outlives who started it.
_MOTO = """
import logging, os, sys, threading
logging.getLogger("werkzeug").setLevel(logging.ERROR)
def ends():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=ends, daemon=True).start()
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple, WSGIRequestHandler
WSGIRequestHandler.protocol_version = "HTTP/1.1"
WSGIRequestHandler.disable_nagle_algorithm = True
WSGIRequestHandler.log_request = lambda *a, **k: None
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app),
           threaded=True)
"""


class S3Server(_Server):
    """An S3 server (moto's), empty; its objects lie in its memory."""

    key = "a-test-key"
    secret = "a-test-secret"

    def __init__(self) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MOTO, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            text=True,
            env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"},
        )
        self._wait()

    @property
    def options(self) -> dict[str, Any]:
        """The ``storage_options`` that lead here."""
        return self.options_at(self.url)

    def options_at(self, url: str) -> dict[str, Any]:
        """The ``storage_options`` that lead to this server by another url, a proxy's."""
        return {"endpoint_url": url, "key": self.key, "secret": self.secret}

    def create_bucket(self, name: str) -> None:
        self.call("PUT", f"/{name}")

    def put(self, path: str, data: bytes) -> None:
        """Put an object; ``path`` is bucket/key."""
        self.call("PUT", f"/{path}", data)

    def call(self, method: str, target: str, data: bytes | None = None) -> bytes:
        """One request of S3's, unsigned: moto believes everybody."""
        request = urllib.request.Request(self.url + target, data=data, method=method)
        auth = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, Signature=0"
        request.add_header("Authorization", auth)
        request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(request, timeout=120) as response:
            return bytes(response.read())

    def close(self) -> None:
        super().close()
        self._errors.close()

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(self._address, 1.0):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)  # its end is what a start that failed looks like
        self._errors.seek(0)
        told = self._errors.read()
        self.close()
        raise RuntimeError(f"the S3 server did not start:\n{told}")

    @property
    def _address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rpartition(":")[2])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
