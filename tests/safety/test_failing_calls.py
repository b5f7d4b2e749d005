"""Every call on a file fails in turn: EIO, ENOSPC, EINTR, short writes, short reads.

Whatever fails, and whenever: the error is ours and names a file of the dataset, the last commit
reads exactly, what failed can be done again or given up, and the next writer goes on.

In the suite the errors take turns over some of each session's calls. Every error at every call, a
few minutes:

    SPLITPIPE_SAFETY=long python -m pytest tests/safety/test_failing_calls.py
"""

from __future__ import annotations

import ast
import contextlib
import errno
import gc
import os
import pickle
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import splitpipe.storage
from splitpipe.dataset import open_dataset
from splitpipe.errors import SplitpipeError, StorageError
from splitpipe.storage import check_dataset, describe
from splitpipe.testing.faults import CALLS, Call, Strike, Tap, fail, forked, shorten
from tests.safety.sessions import FIRST, SESSIONS, Places, Session, spread, write
from tests.safety.truth import WAYS, assert_is, assert_next_writer_works, found_at

LONG = os.environ.get("SPLITPIPE_SAFETY") == "long"
ERRORS = (errno.EIO, errno.ENOSPC, errno.EINTR)

# What the sessions below ask of the system; `test_every_function_is_met` keeps it complete.
WRITING = (
    "fcntl.flock",
    "mmap.mmap",
    "os.close",
    "os.fdatasync",
    "os.fstat",
    "os.fsync",
    "os.ftruncate",
    "os.listdir",
    "os.lstat",
    "os.mkdir",
    "os.open",
    "os.pread",
    "os.pwrite",
    "os.replace",
    "os.sendfile",
    "os.stat",
    "os.truncate",
    "os.unlink",
)
AGAIN = ("os.fsync", "os.open", "os.pwrite", "os.replace")
"""Those that the short suite tries in both ways."""

READING = (
    "fcntl.flock",
    "mmap.mmap",
    "os.close",
    "os.fstat",
    "os.lstat",
    "os.open",
    "os.pread",
    "os.stat",
)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def calls_of(action: Callable[[Path], object], path: Path) -> list[Call]:
    """What an action asks of its disk when all goes well; its directory's parent counts too."""
    calls: list[Call] = []

    def note(call: Call, proceed: Callable[[], Any]) -> Any:
        calls.append(call)
        return proceed()

    with Tap(path.parent, note):
        action(path)
    return calls


# -- a call fails ---------------------------------------------------------------------------------


# How often each session calls each function.
FOUND: dict[str, Counter[str]] = {}


def numbers_of(
    session: Session, places: Places, name: str, first: int
) -> Iterator[tuple[int, int]]:
    """Numbers of a session's calls of one function, and the errors to try there."""
    if session.name not in FOUND:
        path = places.new(session)
        FOUND[session.name] = Counter(call.name for call in calls_of(session.run, path))
        assert_is(path, session.after)
    count = FOUND[session.name][name]
    # The two tests below begin in different places.
    for at in spread(count, 10_000 if LONG else 3, first=min(first, count - 1)):
        for number in ERRORS if LONG else [ERRORS[at % 3]]:
            yield at + 1, number


@pytest.mark.deadline(600 if LONG else 60)
@pytest.mark.parametrize("name", WRITING)
def test_a_call_fails_and_the_writer_is_left(places: Places, name: str) -> None:
    for session in SESSIONS:
        for at, number in numbers_of(session, places, name, 0):
            path = places.new(session)
            strike = Strike(at, fail(number), chosen=lambda call: call.name == name)
            with Tap(path.parent, strike):
                errors = errors_of(session.run, path)
            quiet = not errors
            assert_ours(errors, number, path, f"{session}: {strike.struck}")
            found = found_at(path, session.outcomes)
            if quiet:
                assert session.outcomes[found] == session.after
            if at % 3 == 1 or LONG:
                assert_next_writer_works(path, session.outcomes)
            places.drop(path)


@pytest.mark.deadline(600 if LONG else 60)
@pytest.mark.parametrize(
    "name",
    [name if name in AGAIN else pytest.param(name, marks=pytest.mark.long) for name in WRITING],
)
def test_a_call_fails_and_what_failed_is_done_again(places: Places, name: str) -> None:
    for session in SESSIONS:
        for at, number in numbers_of(session, places, name, 1):
            path = places.new(session)
            strike = Strike(at, fail(number), chosen=lambda call: call.name == name)
            errors: list[SplitpipeError] = []
            with Tap(path.parent, strike):
                session.run_repeating(path, errors.append)
            assert_ours(errors, number, path, f"{session}: {strike.struck}")
            assert_is(path, session.after)
            if at % 3 == 1 or LONG:
                assert_next_writer_works(path, session.outcomes)
            places.drop(path)


def errors_of(action: Callable[[Path], object], path: Path) -> list[SplitpipeError]:
    """The error that an action ends with, if any; in a list, so that it can be let go of."""
    try:
        action(path)
    except SplitpipeError as error:
        return [error]
    return []


def assert_ours(errors: list[SplitpipeError], number: int, path: Path, where: str) -> None:
    """The errors are what was injected, said in our way, and leave nothing open."""
    while errors:
        error = errors.pop()
        assert isinstance(error, StorageError), where
        assert error.errno == number, where
        assert os.strerror(number) in str(error), where
        assert Path(error.filename).is_relative_to(path.parent), where
        del error
    assert not open_below(path), where


def open_below(path: Path) -> list[str]:
    """What this process has open of a dataset."""
    for attempt in range(2):
        found = []
        for entry in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/self/fd/{entry}"))
        found = [name for name in found if name.startswith(str(path))]
        if not found or attempt:
            break
        # What an error's traceback holds is let go of with it.
        gc.collect()
    return found


@pytest.mark.deadline(600 if LONG else 60)
@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_the_disk_stays_full_until_someone_makes_room(places: Places, session: Session) -> None:
    path = places.new(session)
    changes = [call for call in calls_of(session.run, path) if call.changes]
    for at in spread(len(changes), 10_000 if LONG else 6):
        path = places.new(session)
        strike = Strike(at + 1, fail(errno.ENOSPC), chosen=lambda call: call.changes, forever=True)
        with Tap(path.parent, strike), pytest.raises(StorageError) as caught:
            session.run(path)
        assert caught.value.errno == errno.ENOSPC
        found = found_at(path, session.outcomes)
        with Tap(path.parent, strike):
            strike.cure()
            assert_next_writer_works(path, [session.outcomes[found]])
        places.drop(path)


@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_all_writes_and_reads_are_short(places: Places, session: Session) -> None:
    path = places.new(session)
    with Tap(path.parent, Strike(1, shorten, forever=True)):
        session.run(path)
        assert_is(path, session.after)
        assert_next_writer_works(path, session.outcomes)


# -- reading --------------------------------------------------------------------------------------


def read_it_all(path: Path) -> None:
    """Each thing that reads, once; what it gives must be right, or be said to be wrong."""
    describe(path)
    for finding in check_dataset(path).findings:
        # A file that cannot be read does not end a check.
        assert str(path) in finding.message
    with open_dataset(path, max_open_bins=1) as ds:
        for way in WAYS.values():
            assert way(ds) == list(FIRST)
        with pickle.loads(pickle.dumps(ds)) as again:
            assert again.get_batch([5, -1, 77, 6]) == [FIRST[row] for row in (5, -1, 77, 6)]


@pytest.mark.deadline(600 if LONG else 60)
@pytest.mark.parametrize("name", READING)
def test_a_call_fails_while_reading(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "ds", FIRST)
    calls = [call for call in calls_of(read_it_all, path) if call.name == name]
    for at in spread(len(calls), 10_000 if LONG else 12):
        number = ERRORS[at % 3]
        strike = Strike(at + 1, fail(number), chosen=lambda call: call.name == name)
        with Tap(path, strike):
            errors = errors_of(read_it_all, path)
        assert_ours(errors, number, path, str(strike.struck))
    assert_is(path, FIRST)


@pytest.mark.skipif(not hasattr(signal, "SIGPROF"), reason="there are no profiling signals here")
def test_a_storm_of_signals_interrupts_real_calls(tmp_path: Path) -> None:
    """EINTR as it really comes: the interpreter makes an interrupted call again."""
    records = [os.urandom(70_000) for _ in range(30)]

    def session(tell: Callable[[], None]) -> None:
        signal.signal(signal.SIGPROF, lambda *_: tell())
        signal.setitimer(signal.ITIMER_PROF, 0.0005, 0.0005)
        for turn in range(4):
            write(tmp_path / f"{turn}", records, bins=5)
            assert_is(tmp_path / f"{turn}", records)

    with forked(session) as child:
        assert child.wait() == 0
        assert child.told
    for turn in range(4):
        assert_is(tmp_path / f"{turn}", records)


# -- nothing is overlooked ------------------------------------------------------------------------

# Functions of ``os`` that the storage may use and no tap needs to stand under.
HARMLESS = {
    "cpu_count",
    "environ",
    "fspath",
    "getpid",
    "stat_result",  # a type
    "path",
    "preadv",  # asks the page cache; any error counts as 'unknown'
    "register_at_fork",
}
# What makes calls in C, or by functions that no tap stands under, and why that is all right.
ELSEWHERE = {
    ("catalog_work.py", "shutil.copyfile"): "the copy is compared with its checksum",
    ("catalog_work.py", "sqlite3.connect"): "a file that no commit names until it was synced",
    ("catalog.py", "sqlite3.connect"): "reads an immutable file after its checksum was compared",
}
FILE_MODULES = {"fcntl", "io", "mmap", "os", "pathlib", "shutil", "sqlite3", "tempfile"}


def used_names(source: Path) -> set[str]:
    """Every ``module.name`` of a module that touches files; and ``open``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in FILE_MODULES:
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in FILE_MODULES:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Name) and node.id == "open":
            found.add("builtins.open")
    return found


STORAGE = Path(splitpipe.storage.__file__).parent


@pytest.mark.parametrize("source", sorted(STORAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_function_of_the_storage_is_out_of_reach(source: Path) -> None:
    """A new one: put it into `faults.CALLS`, or say here why it needs no failing."""
    for name in sorted(used_names(source)):
        module, _, attribute = name.partition(".")
        constant = attribute.isupper() or attribute.lstrip("_")[:1].isupper()
        if name in CALLS or constant or (module == "os" and attribute in HARMLESS):
            continue
        if module == "sqlite3" and attribute in ("threadsafety", "sqlite_version_info"):
            continue
        assert (source.name, name) in ELSEWHERE, f"{source.name} uses {name}"


def test_every_function_is_met(places: Places) -> None:
    """What is failed above is all that the sessions use."""
    met: set[str] = set()
    for session in SESSIONS:
        path = places.new(session)
        met |= {call.name for call in calls_of(session.run, path)}
    assert met <= set(WRITING)
    path = write(places.new(SESSIONS[0]), FIRST)
    met = {call.name for call in calls_of(read_it_all, path)}
    # Asked whether a record is in memory; whatever goes wrong with it counts as "unknown".
    assert met - {"os.preadv", "os.posix_fadvise"} <= set(READING)
