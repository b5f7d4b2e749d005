"""What holds for every test: a deadline, and nothing left behind.

Responsible for: the plugin `HouseRules`, which covers the tests of this folder and the examples in
the docstrings of the package alike.

Rules:
- a test that hangs dumps every thread's stack and fails; if even that does not end it, the whole
  run ends loudly. ``@pytest.mark.deadline(seconds)`` changes the time allowed, which is that of a
  quiet machine: a busy one is given `PATIENCE` times as much.
- a test that leaves a child process, a thread, an open descriptor or a mapping of shared memory
  behind fails. ``@pytest.mark.leaks("reason")`` excuses one.
- what Python's own multiprocessing keeps for the life of the process (the fork server, the resource
  tracker and their pipes) is not a leak.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import hypothesis
import pytest

from splitpipe.verification.possessions import left_behind, possessions

DEADLINE_S = 60.0
PATIENCE = 5  # what is slow because others compute is no failure
HARD_GRACE_S = 60.0  # what a failed test may take to clean up before the whole run is ended
SETTLE_S = 30.0  # how long something that is on its way out may take to be gone

_MAIN_THREAD_ONLY = threading.main_thread()

hypothesis.settings.register_profile(
    "house",
    deadline=None,  # this file's deadline is the one that counts, and a busy machine is no failure
    derandomize=bool(os.environ.get("CI")),
    database=None,
)


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
        before = possessions()
        yield
        left = left_behind(before, settle_s=SETTLE_S)
        if left:
            lines = [f"  {kind}: {', '.join(names)}" for kind, names in left.items()]
            pytest.fail("the test left something behind:\n" + "\n".join(lines), pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    # Tests start Python hundreds of times. Who has forbidden bytecode pays for compiling the whole
    # package, each time; `python -m tests` has done this before it started us.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    hypothesis.settings.load_profile("house")
    # Whoever starts the run in the background of a script has Ctrl-C ignored, and all programs that
    # tests start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Configuration runs outside pytest's capture, so this is the terminal's own stderr. It stays
    # open to the end of the process: the hard deadline writes to it at any time.
    config.pluginmanager.register(HouseRules(os.dup(2)), "house-rules")


def pytest_collection_finish(session: pytest.Session) -> None:
    # The thousands of tests stay to the end. No collection need look at them again, and no process
    # that is forked need copy the pages that such a look writes to.
    del session
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def _deadline(item: pytest.Item, stderr: int) -> Iterator[None]:
    """Fail the test when its time is over; end the run when even failing does not end the test."""
    marker = item.get_closest_marker("deadline")
    seconds = PATIENCE * (float(marker.args[0]) if marker else DEADLINE_S)
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
