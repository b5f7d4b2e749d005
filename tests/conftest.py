"""What holds for every test: a deadline, and nothing left behind.

Responsible for: the plugin `HouseRules`, which covers the tests of this folder and the examples in
the docstrings of the package alike.

Rules:
- a test that hangs dumps every thread's stack and fails; if even that does not end it, the whole
  run ends loudly. ``@pytest.mark.deadline(seconds)`` changes the time allowed.
- a test that leaves a child process, a thread, an open descriptor or a mapping of shared memory
  behind fails. ``@pytest.mark.leaks("reason")`` excuses one.
- what Python's own multiprocessing keeps for the life of the process (the fork server, the resource
  tracker and their pipes) is not a leak.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import psutil
import pytest

DEADLINE_S = 60.0
HARD_GRACE_S = 30.0  # what a failed test may take to clean up before the whole run is ended
SETTLE_S = 3.0  # how long something that is on its way out may take to be gone

_MAIN_THREAD_ONLY = threading.main_thread()

hypothesis.settings.register_profile(
    "house",
    deadline=None,  # this file's deadline is the one that counts, and a busy machine is no failure
    derandomize=bool(os.environ.get("CI")),
    database=None,
)


@dataclass(frozen=True)
class Possessions:
    """What this process holds at one moment."""

    children: Counter[str]
    threads: Counter[str]
    descriptors: Counter[str]
    segments: Counter[str]

    def beyond(self, before: Possessions) -> dict[str, list[str]]:
        """What is here and was not there before, by kind."""
        kinds = ("children", "threads", "descriptors", "segments")
        found = {kind: getattr(self, kind) - getattr(before, kind) for kind in kinds}
        return {kind: sorted(new.elements()) for kind, new in found.items() if new}


class HouseRules:
    """The plugin: a deadline on every test, and a look at what it leaves behind."""

    def __init__(self, stderr: int) -> None:
        self._stderr = stderr

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        with _deadline(item, self._stderr):
            return (yield)

    @pytest.fixture(autouse=True)
    def _nothing_left_behind(self, request: pytest.FixtureRequest) -> Iterator[None]:
        marker = request.node.get_closest_marker("leaks")
        if marker is not None:
            if not (marker.args and isinstance(marker.args[0], str)):
                pytest.fail("@pytest.mark.leaks needs its reason as a string")
            yield
            return
        before = _possessions()
        yield
        left = _left_behind(before)
        if left:
            lines = [f"  {kind}: {', '.join(names)}" for kind, names in left.items()]
            pytest.fail("the test left something behind:\n" + "\n".join(lines), pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("house")
    # Configuration runs outside pytest's capture, so this is the terminal's own stderr. It stays
    # open to the end of the process: the hard deadline writes to it at any time.
    config.pluginmanager.register(HouseRules(os.dup(2)), "house-rules")


@contextlib.contextmanager
def _deadline(item: pytest.Item, stderr: int) -> Iterator[None]:
    """Fail the test when its time is over; end the run when even failing does not end the test."""
    marker = item.get_closest_marker("deadline")
    seconds = float(marker.args[0]) if marker else DEADLINE_S
    debugged = item.config.getoption("usepdb", default=False)
    if debugged or threading.current_thread() is not _MAIN_THREAD_ONLY:
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        os.write(stderr, f"\n{item.nodeid}: still running after {seconds:g} s\n".encode())
        faulthandler.dump_traceback(stderr, all_threads=True)
        # A Failed is no Exception: code under test that swallows exceptions cannot swallow it.
        pytest.fail(f"still running after {seconds:g} s; every thread's stack is on stderr")

    earlier = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + HARD_GRACE_S, file=stderr, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, earlier)


def _left_behind(before: Possessions) -> dict[str, list[str]]:
    """What is still here after all that was on its way out had its time to go."""
    end = time.monotonic() + SETTLE_S
    collected = False
    while left := _possessions().beyond(before):
        if not collected:
            gc.collect()
            collected = True
        elif time.monotonic() > end:
            return left
        else:
            threading.Event().wait(0.01)
    return {}


def _possessions() -> Possessions:
    keepers = _keepers()
    return Possessions(
        children=Counter(_children(keepers)),
        threads=Counter(f"{t.name} ({t.ident})" for t in threading.enumerate()),
        descriptors=Counter(_descriptors()),
        segments=Counter(_segments()),
    )


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
            yield f"pid {pid} ({process.status()}): {' '.join(process.cmdline())[:120]}"


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
