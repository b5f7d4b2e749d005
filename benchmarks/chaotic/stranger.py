"""A program that has nothing to do with splitpipe, and whose names look as if they were ours.

Responsible for: holding segments, sockets, files, a folder, anonymous memory and a child under
names that a careless clean-up would take for its own; saying, on every line of stdin, ``intact``
while all of them are what they were, and which are not, else.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

CONTENT = b"this belongs to somebody else"
MARK = "-not-ours"
"""At the end of its names, for tests beside it that look for what splitpipe left."""
PREFIXES = ("splitpipe-", "splitpipe_", "psm_splitpipe", "pymp-splitpipe")


class Possessions:
    """What it holds, and whether it still does."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        number = f"{os.getpid()}{MARK}"
        self.segments = [self._segment(f"{prefix}{number}") for prefix in PREFIXES]
        folder = Path(tempfile.gettempdir())
        self.files = [self._file(folder / f"{prefix}{number}") for prefix in PREFIXES]
        self.folder = folder / f"splitpipe-{os.getpid()}"
        self.folder.mkdir()
        stack.callback(self.folder.rmdir)
        self.files.append(self._file(self.folder / "splitpipe.lock"))
        self.addresses = [f"\0splitpipe-{number}", str(self.folder / "socket")]
        for address in self.addresses:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(address)
            listening.listen()
        self.memory = os.memfd_create("splitpipe-arena")
        os.write(self.memory, CONTENT)
        self.child = stack.enter_context(
            subprocess.Popen(["splitpipe worker 0 of map", "3600"], executable="/bin/sleep")
        )
        stack.callback(self.child.kill)

    def _segment(self, name: str) -> shared_memory.SharedMemory:
        segment = shared_memory.SharedMemory(name, create=True, size=4096)
        segment.buf[: len(CONTENT)] = CONTENT
        self._stack.callback(segment.unlink)
        self._stack.callback(segment.close)
        return segment

    def _file(self, path: Path) -> Path:
        path.write_bytes(CONTENT)
        self._stack.callback(path.unlink, missing_ok=True)
        return path

    def faults(self) -> Iterator[str]:
        """What is not as it was."""
        for segment in self.segments:
            path = Path("/dev/shm") / segment.name
            if not path.exists() or not path.read_bytes().startswith(CONTENT):
                yield f"segment {segment.name}"
        for file in self.files:
            if not file.exists() or file.read_bytes() != CONTENT:
                yield f"file {file}"
        for address in self.addresses:
            with socket.socket(socket.AF_UNIX) as caller:
                if caller.connect_ex(address) != 0:
                    yield f"socket {address!r}"
        if os.pread(self.memory, 100, 0) != CONTENT:
            yield "anonymous memory"
        if self.child.poll() is not None:
            yield "child"


def main() -> None:
    """Answer every line of stdin."""
    with ExitStack() as stack:
        held = Possessions(stack)
        # Its own tracker would tidy up at its end; here nobody but `faults` is to notice.
        for segment in held.segments:
            resource_tracker.unregister(segment._name, "shared_memory")  # type: ignore[attr-defined]
        print("ready", flush=True)
        for _ in sys.stdin:
            print(", ".join(held.faults()) or "intact", flush=True)
        for segment in held.segments:
            resource_tracker.register(segment._name, "shared_memory")  # type: ignore[attr-defined]
        (held.folder / "socket").unlink()


if __name__ == "__main__":
    main()
