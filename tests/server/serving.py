"""A real server in a process of its own, for tests.

Responsible for: `Served`, which starts `splitpipe serve` on a free port of loopback, ends it by its
process id, and starts it again on the same folder and port.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Served", "run_splitpipe", "serving"]

TREE = Path(__file__).resolve().parents[2]
END_S = 120.0


def environment() -> dict[str, str]:
    """Of a process that runs this tree, whatever is installed."""
    return {**os.environ, "PYTHONPATH": str(TREE), "PYTHONFAULTHANDLER": "1"}


def run_splitpipe(*arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "splitpipe", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class Served:
    """A server: made by `serving`.

    Attributes:
        root: its folder; made by the server.
        url: without a slash at the end; the same after `start` as before.
        token: that `call` and `json` send, or None.
    """

    def __init__(self, root: Path, *options: str, token: str | None = None) -> None:
        self.root = root
        self.url = ""
        self.token = token
        self._options = options
        self._log = root.with_name(root.name + ".log")
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        """All that it wrote to stderr so far, over all starts."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def start(self) -> None:
        """Start it, and return once it answers."""
        assert self._process is None
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "splitpipe", "serve", str(self.root), "--port", port]
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*command, *self._options],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("serving "):
                self.url = line.split()[1]
            if line.endswith("Ctrl-C ends it.\n"):
                return
        code = self._end()
        raise AssertionError(f"the server ended with {code} before it answered:\n{self.log}")

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._signal(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it in good order, and return its exit code."""
        return self._signal(number)

    def call(
        self, method: str, path: str, *, body: Any = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Ask, and return status, body and headers of the answer (names in lower case).

        Args:
            method: of HTTP.
            path: with its query.
            body: bytes as they are, anything else as JSON.
            headers: further ones; ``_`` in a name is ``-``.
        """
        request = urllib.request.Request(self.url + path, method=method)
        if body is not None:
            kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
            request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
            request.add_header("Content-Type", kind)
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read(), _lower(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), _lower(error.headers)

    def json(self, method: str, path: str, *, body: Any = None, status: int | None = None) -> Any:
        """Ask, and return the answer's JSON; it must have the status, or be a success."""
        found, content, _ = self.call(method, path, body=body)
        wanted = found == status if status is not None else 200 <= found < 300
        assert wanted, f"{method} {path}: {found} {content!r}\n{self.log[-4000:]}"
        return json.loads(content) if content else None

    def _signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        children: list[psutil.Process] = []
        if number == signal.SIGKILL:
            self._process.send_signal(signal.SIGSTOP)  # it starts nobody after the look
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(number)
        code = self._end()
        # They die by themselves, but one that has just been started has to come so far first.
        _, left = psutil.wait_procs(children, timeout=END_S)
        assert not left, f"the server left {left} behind"
        return code

    def _end(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # its stacks are in the log then
            process.wait()
            raise AssertionError(f"the server did not end:\n{self.log[-8000:]}") from None
        finally:
            if process.stdout is not None:
                process.stdout.close()
        return process.returncode

    def close(self) -> None:
        """End it if it runs."""
        if self._process is not None:
            self.stop()


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextmanager
def serving(root: Path, *options: str, token: str | None = None) -> Iterator[Served]:
    """A server that runs, with options of ``splitpipe serve``; ended with the block."""
    served = Served(root, *options, token=token)
    served.start()
    try:
        yield served
    finally:
        served.close()
