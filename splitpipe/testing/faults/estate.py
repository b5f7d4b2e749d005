"""What a program owns while it lives, and what is left of that afterwards.

Responsible for: `Estate`: the processes of a family, the sockets and the named segments they hold
and their temporary files, each known for theirs, so that what belongs to others on the same machine
is never taken for something left behind.

Rules:
- a process is known by pid and start time, a socket and a file by their inode: a name or a number
  that somebody else has taken meanwhile is not theirs;
- looking changes nothing.

Linux only, as it reads ``/proc``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

__all__ = ["Estate", "adopt_orphans"]

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_TABLES = ("unix", "tcp", "tcp6", "udp", "udp6")
_SUBREAPER = 36
_LOOK_S = 0.005


def adopt_orphans() -> None:
    """Make whatever loses its parent below this process its child, from now on.

    What a killed program leaves running is found among the children then, wherever it came from.

    Raises:
        OSError: this system cannot do that.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(f"{sys.platform} has no adoption of orphans")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True, slots=True)
class Estate:
    """What a family of processes held at one moment.

    Attributes:
        processes: the one that was asked about last, those it started before it.
        sockets: inodes.
        names: files in shared memory and in the folders that were said, with their inodes.
    """

    processes: tuple[psutil.Process, ...]
    sockets: frozenset[int] = field(repr=False)
    names: frozenset[tuple[str, int]] = field(repr=False)

    @classmethod
    def of(cls, pid: int, *, folders: Iterable[str | os.PathLike[str]] = ()) -> Estate:
        """Return what `pid` and everything below it holds.

        Args:
            pid: the oldest of the family.
            folders: what lies in these is theirs, too: a TMPDIR of their own, say.

        Example:
            >>> import subprocess
            >>> process = subprocess.Popen(["sleep", "60"])
            >>> estate = Estate.of(process.pid)
            >>> [text.split()[0] for text in estate.remains()]
            ['process']
            >>> process.kill(); _ = process.wait()
            >>> estate.remains()
            ()
        """
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            oldest = psutil.Process(pid)
            family = [*oldest.children(recursive=True), oldest]
        sockets: set[int] = set()
        names: set[tuple[str, int]] = set()
        for process in family:
            # It may end while it is looked at.
            with contextlib.suppress(OSError):
                for target in _targets(process.pid):
                    match = _SOCKET.match(target)
                    if match:
                        sockets.add(int(match[1]))
                    elif target.startswith("/dev/shm/"):
                        names |= set(_named(target))
        for folder in folders:
            for path in Path(folder).rglob("*"):
                names |= set(_named(str(path)))
        return cls(tuple(family), frozenset(sockets), frozenset(names))

    def remains(self) -> tuple[str, ...]:
        """Return what of it is still there, in words."""
        left = [text for one in self.processes for text in _living(one)]
        if self.sockets:
            left += [f"socket {inode}" for inode in sorted(self.sockets & _open_sockets())]
        for name, inode in sorted(self.names):
            if (name, inode) in set(_named(name)):
                left.append(f"file {name}")
        return tuple(left)

    def wait(self, within_s: float) -> tuple[str, ...]:
        """Return what is still there when all is gone or `within_s` seconds are over."""
        end = time.monotonic() + within_s
        while (left := self.remains()) and time.monotonic() < end:
            threading.Event().wait(_LOOK_S)
        return left

    def kill(self) -> None:
        """SIGKILL what of its processes still lives."""
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _living(process: psutil.Process) -> Iterator[str]:
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            yield f"process {process.pid} ({' '.join(process.cmdline())[-80:]})"


def _targets(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"{folder}/{name}")
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        yield from line.split(maxsplit=5)[5:]


def _named(path: str) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):
        yield path, os.lstat(path).st_ino


def _open_sockets() -> set[int]:
    found = set()
    for table in _TABLES:
        with contextlib.suppress(OSError):
            rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            column = 6 if table == "unix" else 9
            found |= {int(row.split()[column]) for row in rows}
    return found
