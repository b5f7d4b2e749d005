"""A process that supervises engines as a server does, and gives tickets over a socket.

``python -m tests.server.feed.parent FOLDER JOB``: what it is asked are lines of JSON, so that a
test can kill it like a server and ask its successor for another ticket.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitpipe.server.feed.engines import EngineJob, Engines

from .making import ITERATION, make_database, wait_for


def main() -> None:
    folder = Path(sys.argv[1])
    job = EngineJob(**json.loads(sys.argv[2]))
    engines = Engines(f"sqlite:///{folder / 'state.sqlite'}", run=folder / "run")
    engines.start(job)
    path = folder / "asked"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(16)
        while True:
            one, _ = listening.accept()
            threading.Thread(target=answer, args=(engines, one), daemon=True).start()


def answer(engines: Engines, one: socket.socket) -> None:
    with one, one.makefile("rw") as lines:
        told = json.loads(lines.readline())
        if told["what"] == "status":
            said: Any = engines.status(ITERATION)
        else:
            said = engines.ticket(ITERATION, **told["fields"])
        lines.write(json.dumps(said) + "\n")


class Parent:
    """That process, as a test sees it: killed and started again while clients ask it."""

    def __init__(self, folder: Path, job: EngineJob) -> None:
        self._folder = folder
        self._job = json.dumps(vars(job))
        (folder / "run").mkdir(mode=0o700)
        make_database(folder)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "tests.server.feed.parent", str(self._folder), self._job]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        """Kill it, and nobody else: its engines see to themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def ask(self, **told: Any) -> Any:
        """Ask it, until somebody answers."""

        def once() -> Any:
            try:
                with socket.socket(socket.AF_UNIX) as asking:
                    asking.settimeout(20.0)
                    asking.connect(str(self._folder / "asked"))
                    with asking.makefile("rw") as lines:
                        lines.write(json.dumps(told) + "\n")
                        lines.flush()
                        return json.loads(lines.readline() or "null")
            except (OSError, ValueError):
                return None

        return wait_for(once, until_s=60.0)

    def ticket(self, _iteration: str, **fields: Any) -> Mapping[str, Any]:
        """A ticket, as `Engines.ticket` gives it."""
        said: Mapping[str, Any] = self.ask(what="ticket", fields=fields)
        return said


if __name__ == "__main__":
    main()
