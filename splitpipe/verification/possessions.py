"""What a process holds, and what is still there when it should be gone.

Responsible for: `possessions`, all children, threads, descriptors and shared memory of this process
at one moment, and `left_behind`, what of it is new and stays.

Rules:
- what multiprocessing keeps for the life of a program (the fork server, the resource tracker and
  their pipes) is no leak, nor are standard devices;
- what is on its way out is given time to go, and what only the garbage collector ends is ended.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Possessions", "left_behind", "possessions"]

SETTLE_S = 1.0
"""How long something that is on its way out may take to be gone."""


@dataclass(frozen=True)
class Possessions:
    """What this process holds."""

    children: Counter[str]
    threads: Counter[str]
    descriptors: Counter[str]
    segments: Counter[str]

    def beyond(self, before: Possessions) -> dict[str, list[str]]:
        """Return what is here and was not there before, by kind."""
        kinds = ("children", "threads", "descriptors", "segments")
        found = {kind: getattr(self, kind) - getattr(before, kind) for kind in kinds}
        return {kind: sorted(new.elements()) for kind, new in found.items() if new}


def possessions() -> Possessions:
    """Return what this process holds now."""
    return Possessions(
        children=Counter(_children(_keepers())),
        threads=Counter(f"{t.name} ({t.ident})" for t in threading.enumerate()),
        descriptors=Counter(_descriptors()),
        segments=Counter(_segments()),
    )


def left_behind(before: Possessions, *, settle_s: float = SETTLE_S) -> dict[str, list[str]]:
    """Return what was not there `before` and is still here after all that was on its way out had
    `settle_s` to go.
    """
    end = time.monotonic() + settle_s
    collected = False
    while left := possessions().beyond(before):
        if not collected:
            gc.collect()
            collected = True
        elif time.monotonic() > end:
            return left
        else:
            threading.Event().wait(0.01)
    return {}


# --- what multiprocessing keeps for itself -------------------------------------------------------


def _server() -> Any:
    return multiprocessing.forkserver._forkserver


def _tracker() -> Any:
    return multiprocessing.resource_tracker._resource_tracker


def _keepers() -> set[int]:
    pids = {_server()._forkserver_pid, _tracker()._pid}
    return {pid for pid in pids if pid is not None}


def _kept_descriptors() -> set[int]:
    kept = {_server()._forkserver_alive_fd, _tracker()._fd}
    return {fd for fd in kept if fd is not None}


# --- what can be left behind ---------------------------------------------------------------------


def _children(keepers: set[int]) -> Iterator[str]:
    """Children and grandchildren, also those that the fork server made on our behalf."""
    for pid in _descendants(os.getpid()):
        if pid in keepers:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            # Whether it runs or sleeps at this moment is no difference: one that stays is the same.
            dead = " (dead)" if process.status() == psutil.STATUS_ZOMBIE else ""
            yield f"pid {pid}{dead}: {' '.join(process.cmdline())[:120]}"


def _descendants(root: int) -> list[int]:
    if not Path(f"/proc/{root}/task/{root}/children").exists():
        return [child.pid for child in psutil.Process(root).children(recursive=True)]
    # psutil looks at every process of the machine; the kernel knows our children, in microseconds.
    found: list[int] = []
    pending = [root]
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text()
                pending.extend(int(child) for child in text.split())
        found.append(pid)
    return found[1:]


def _descriptors() -> Iterator[str]:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    kept = _kept_descriptors()
    for name in os.listdir(folder):
        # The folder's own descriptor is in the list and is closed by now.
        with contextlib.suppress(OSError):
            target = os.readlink(f"{folder}/{name}")
            if int(name) not in kept and target not in ("/dev/urandom", "/dev/random"):
                yield target


def _segments() -> Iterator[str]:
    """Mappings of shared memory: they may outlive every descriptor."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/maps") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[5:]
            if path and path[0].startswith(("/memfd:", "/dev/shm/")):
                yield path[0].strip()
