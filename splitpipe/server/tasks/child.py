"""A task's process, from the server's side.

Responsible for: `Child`: starting the process, its messages, its end.

Rules:
- it is ended by its own pid, and waited for: there is none left behind;
- the end of what it wrote to stderr is told in the error of one that ended badly.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from splitpipe.errors import WorkerDied
from splitpipe.server.children import environment, how_it_ended, last_words

__all__ = ["Child"]


class Child:
    """The process of one task.

    Args:
        kind: of the task.
        job: what it does, as JSON.
    """

    def __init__(self, kind: str, job: Mapping[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._ended = threading.Lock()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "splitpipe.server.tasks.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment(),
            )
        except BaseException:
            self._errors.close()
            raise
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already: messages() says so
            self._process.stdin.write(json.dumps({"kind": kind, "job": job}).encode() + b"\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it says, until it ends.

        Raises:
            WorkerDied: it ended without a result or an error.
        """
        assert self._process.stdout is not None
        last: dict[str, Any] = {}
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # the half of a line of one that was killed
                last = json.loads(line)
                yield last
        status = self._process.wait()
        if not {"result", "error"} & last.keys():
            said = last_words(self._errors)
            told = f", and said:\n{said}" if said else ""
            raise WorkerDied(f"the process of the task ended with {how_it_ended(status)}{told}")

    def kill(self) -> None:
        """End it now."""
        with self._ended, contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:
                self._process.kill()

    def close(self) -> None:
        """End it, wait for it, and let go of its pipes; a second call does nothing."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
