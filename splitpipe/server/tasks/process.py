"""The process of a task: one job in, progress and a result out.

Responsible for: what runs as ``python -m splitpipe.server.tasks.process``: reading one line of JSON
(``kind`` and ``job``) from stdin, doing it, and writing lines of JSON (``progress``, then
``result`` or ``error``) to what was stdout.

Rules:
- it ends when its stdin ends: a server that dies takes its tasks along;
- what a module prints goes to stderr, and cannot be taken for a message;
- progress is told a few times a second, however often the work tells it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from splitpipe.server.children import die_with_the_server

__all__ = ["Telling", "main"]

_PROGRESS_S: Final = 0.2


class Telling:
    """Tells the server how far a task is.

    Args:
        write: takes a line.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._last = 0.0

    def progress(self, done: int, total: int, message: str = "") -> None:
        """How much of how much is done."""
        now = time.monotonic()
        if now - self._last >= _PROGRESS_S or done == total:
            self._last = now
            self.say({"progress": {"done": done, "total": total, "message": message}})

    def say(self, message: Mapping[str, Any]) -> None:
        """Write one message."""
        self._write(json.dumps(message) + "\n")


def main() -> int:
    """Do one job."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 1  # the server ended meanwhile
    die_with_the_server(os.dup(0))
    telling = Telling(out.write)
    try:
        asked = json.loads(line)
        # Imported late: what is wrong with an installation is told as any other error.
        from splitpipe.server.tasks.work import WORK

        result = WORK[asked["kind"]](asked["job"], telling.progress)
    except Exception as error:
        telling.say({"error": told(error)})
        return 1
    telling.say({"result": result})
    return 0


def told(error: BaseException) -> dict[str, Any]:
    """An error as JSON."""
    notes = getattr(error, "__notes__", [])
    return {
        "kind": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "notes": [str(note) for note in notes],
    }


if __name__ == "__main__":
    sys.exit(main())
