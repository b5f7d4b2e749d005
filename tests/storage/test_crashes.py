"""Writers that are killed, and disks that fail: the last commit reads exactly, the next one works.

A child process is forked, counts its system calls that change files, and kills itself before,
or in the middle of, the one it was told; the table is complete because every number is tried
until the child lives.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splitpipe.dataset import open_dataset
from splitpipe.errors import FormatError, LockedError, SplitpipeError, StorageError
from splitpipe.storage import DatasetWriter, buffer, check_dataset
from splitpipe.storage.compact import compact
from splitpipe.storage.repair import repair
from tests.storage.making import assert_holds, numbered, write
from tests.storage.tables import assert_table

CALLS = ("pwrite", "fdatasync", "fsync", "replace", "unlink", "truncate", "ftruncate", "makedirs")

FIRST = numbered(150)
SECOND = numbered(140, start=1000)


def create(path: Path) -> None:
    with DatasetWriter(path, bins=2) as w:
        w.write_many(FIRST)


def append(path: Path) -> None:
    with DatasetWriter(path, append=True) as w:
        w.write_many(SECOND)


def append_in_other_bins(path: Path) -> None:
    with DatasetWriter(path, append=True, bins=3) as w:
        w.write_many(SECOND)


def overwrite(path: Path) -> None:
    with DatasetWriter(path, overwrite=True, bins=1) as w:
        w.write_many(SECOND)


SESSIONS: dict[str, tuple[Callable[[Path], None], list[bytes] | None, list[bytes]]] = {
    "create": (create, None, FIRST),
    "append": (append, FIRST, FIRST + SECOND),
    "append in other bins": (append_in_other_bins, FIRST, FIRST + SECOND),
    "overwrite": (overwrite, FIRST, SECOND),
}


class Faults:
    """Puts itself under the system calls, and does something at the n-th."""

    def __init__(self, at: int, strike: Callable[[Callable[..., Any], tuple[Any, ...]], Any]):
        self.count = 0
        self.at = at
        self.strike = strike

    def install(self, setattr_: Callable[[Any, str, Any], None]) -> None:
        for name in CALLS:
            setattr_(os, name, self.around(getattr(os, name)))

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                return self.strike(call, args)
            return call(*args, **options)

        return counted


def die(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_half_and_die(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if call.__name__ == "pwrite":
        descriptor, data, offset = args
        call(descriptor, bytes(data)[: len(data) // 2], offset)
    die(call, args)


def in_child(action: Callable[[], None]) -> int:
    """Run in a forked child; return its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def killed(session: Callable[[Path], None], path: Path, at: int, strike: Any) -> bool:
    """Run a session in a child that dies at its ``at``-th call; whether it came to that."""

    def run() -> None:
        Faults(at, strike).install(setattr)
        session(path)

    status = in_child(run)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.fixture
def places(tmp_path: Path) -> Callable[[list[bytes] | None], Path]:
    """A new directory every time, with a dataset or with nothing in it."""
    base = write(tmp_path / "base", FIRST)
    count = iter(range(10_000))

    def place(records: list[bytes] | None) -> Path:
        path = tmp_path / str(next(count))
        if records is not None:
            shutil.copytree(base, path)
        return path

    return place


@pytest.mark.parametrize("strike", [die, write_half_and_die])
@pytest.mark.parametrize("name", SESSIONS)
def test_a_writer_killed_at_any_call(
    places: Callable[[list[bytes] | None], Path], name: str, strike: Any
) -> None:
    session, before, after = SESSIONS[name]
    at = 1
    seen = set()
    while True:
        path = places(before)
        if not killed(session, path, at, strike):
            break
        seen.add(assert_one_of(path, before, after))
        assert_next_writer_works(path)
        shutil.rmtree(path)
        at += 1
    assert at > 10
    assert_holds(path, after)
    assert seen >= {"before", "after"}


def assert_one_of(path: Path, before: list[bytes] | None, after: list[bytes]) -> str:
    """The dataset is as before the session, or as after it, and nothing between."""
    try:
        with open_dataset(path) as ds:
            records = list(ds)
    except SplitpipeError:
        assert before is None, "a dataset that was committed cannot be read"
        return "before"
    assert_holds(path, records)
    if records == after:
        return "after"
    assert records == (before or [])
    return "before"


def assert_next_writer_works(path: Path) -> None:
    try:
        with open_dataset(path) as ds:
            there = list(ds)
    except SplitpipeError:
        there = []
    with DatasetWriter(path, append=True, bins=4) as w:
        w.write_many(numbered(30))
    assert_holds(path, there + numbered(30))
    named = {p.name for p in path.iterdir()}
    with DatasetWriter(path, overwrite=True) as w:
        w.write(b"x")
    assert_holds(path, [b"x"])
    left = {p.name for p in path.iterdir()} & named
    assert left == {"splitpipe.json", "writer.lock"}, "files of no commit were left"


# -- the same for columns and what changes them -------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"text": None if n % 11 == 3 else f"{n}," * (n % 5), "n": n} for n in range(150)
]


def changed(rows: dict[int, dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    return [{**record, **fields, **rows.get(at, {})} for at, record in enumerate(ROWS)]


def update(path: Path) -> None:
    with DatasetWriter(path, append=True) as w:
        w.update_many([(3, {"text": "three"}), (149, {"n": None}), (3, {"n": 33})])
        w.write({"text": "more", "n": 1})


def delete(path: Path) -> None:
    with DatasetWriter(path, append=True) as w:
        w.delete([0, 149, 70])


def add_column(path: Path) -> None:
    with DatasetWriter(path, append=True) as w:
        w.add_column("extra", "str")
        w.update(5, {"extra": "five"})


def replace_column(path: Path) -> None:
    with DatasetWriter(path, append=True) as w:
        w.update_column("n", [-n for n in range(150)])


def give_keys(path: Path) -> None:
    with DatasetWriter(path, append=True, keys="auto") as w:
        w.write({"text": "a", "n": 0}, key="a", meta={"x": 1})
        w.update(5, {"n": None})


def compact_it(path: Path) -> None:
    compact(path)


CHANGES: dict[str, tuple[Callable[[Path], None], list[dict[str, Any]]]] = {
    "update": (
        update,
        [*changed({3: {"text": "three", "n": 33}, 149: {"n": None}}), {"text": "more", "n": 1}],
    ),
    "delete": (delete, [r for at, r in enumerate(ROWS) if at not in (0, 70, 149)]),
    "add column": (add_column, changed({5: {"extra": "five"}}, extra=None)),
    "replace column": (replace_column, [{**r, "n": -r["n"]} for r in ROWS]),
    "keys": (give_keys, [*changed({5: {"n": None}}), {"text": "a", "n": 0}]),
    "compact": (compact_it, ROWS),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table"
    with DatasetWriter(path, {"text": "str", "n": "int64"}, bins=2) as w:
        w.write_many(ROWS)
    return path


@pytest.mark.long
@pytest.mark.parametrize("strike", [die, write_half_and_die])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_killed_at_any_call(table: Path, tmp_path: Path, name: str, strike: Any) -> None:
    session, after = CHANGES[name]
    at = 1
    seen = set()
    while True:
        path = tmp_path / f"killed {at}"
        shutil.copytree(table, path)
        if not killed(session, path, at, strike):
            break
        seen.add(assert_before_or_after(path, ROWS, after))
        shutil.rmtree(path)
        at += 1
    assert at > 5
    assert_table(path, after)
    assert seen == {"before", "after"}


def assert_before_or_after(path: Path, before: list[Any], after: list[Any]) -> str:
    """One of the two, whole; and the next writers work, and leave nothing of what was."""
    with open_dataset(path) as ds:
        found = list(ds)
    assert_table(path, found)
    with DatasetWriter(path, append=True) as w:
        w.update(1, {"n": 11})
        w.write({"n": 12})
    blank = dict.fromkeys(found[0])
    assert_table(path, [found[0], {**found[1], "n": 11}, *found[2:], {**blank, "n": 12}])
    named = {p.name for p in path.iterdir()}
    with DatasetWriter(path, overwrite=True) as w:
        w.write(b"x")
    left = {p.name for p in path.iterdir()} & named
    assert left == {"splitpipe.json", "writer.lock"}, "files of no commit were left"
    if found == after and (found != before or "v0002" in str(sorted(named))):
        return "after"
    assert found == before
    return "before"


@pytest.mark.long
@pytest.mark.parametrize("strike", [die, write_half_and_die])
def test_a_repair_killed_at_any_call(table: Path, tmp_path: Path, strike: Any) -> None:
    (table / "v0001-c000.index").unlink()
    (table / "v0001-c001.sums").unlink()
    at = 1
    while True:
        path = tmp_path / f"killed {at}"
        shutil.copytree(table, path)
        if not killed(lambda path: repair(path) and None, path, at, strike):
            break
        repair(path)
        assert_table(path, ROWS)
        assert_before_or_after(path, ROWS, ROWS)
        shutil.rmtree(path)
        at += 1
    assert at > 5
    assert_table(path, ROWS)


@pytest.mark.parametrize("seed", range(6))
def test_a_writer_killed_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    """Whatever was acknowledged is there; at most the commit under way is there as well."""
    path = write(tmp_path / "ds", FIRST)
    rng = random.Random(seed)
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with DatasetWriter(path, append=True, bins=5) as w:
                while True:
                    w.write_many(numbered(50, start=w.rows))
                    w.commit()
                    os.write(send, b"c")
        finally:
            os._exit(1)
    os.close(send)
    acknowledged = 0
    for _ in range(rng.randrange(1, 25)):
        acknowledged += len(os.read(receive, 1))
    # A random number of turns of this loop later, the child is somewhere in its next commits.
    for _ in range(rng.randrange(20_000)):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while more := os.read(receive, 1000):
        acknowledged += len(more)
    os.close(receive)
    with open_dataset(path) as ds:
        rows = len(ds)
    assert 0 <= rows - 150 - 50 * acknowledged <= 50
    expected = FIRST + [r for start in range(150, rows, 50) for r in numbered(50, start)]
    assert_holds(path, expected)
    with DatasetWriter(path, append=True) as w:
        w.write(b"next")
    assert_holds(path, [*expected, b"next"])


class TestFailingDisk:
    """Every call fails in turn, once; the writer says so and can be asked again."""

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
    @pytest.mark.parametrize("name", SESSIONS)
    def test_any_call_fails(
        self, places: Callable[[list[bytes] | None], Path], name: str, number: int
    ) -> None:
        session, before, after = SESSIONS[name]

        def fail(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
            raise OSError(number, os.strerror(number))

        at = 1
        while True:
            path = places(before)
            faults = Faults(at, fail)
            error = None
            with pytest.MonkeyPatch.context() as patch:
                faults.install(patch.setattr)
                try:
                    session(path)
                except StorageError as caught:
                    error = caught
            if faults.count < at:
                break
            assert error is not None
            assert error.errno == number
            assert os.strerror(number) in str(error)
            assert_one_of(path, before, after)
            assert_next_writer_works(path)
            shutil.rmtree(path)
            at += 1
        assert error is None
        assert at > 10
        assert_holds(path, after)

    @pytest.mark.parametrize("room", [0, 1, 100, 5000, 60_000])
    def test_a_full_disk_can_be_emptied_and_the_commit_repeated(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
    ) -> None:
        path = write(tmp_path / "ds", FIRST)
        left = [room]
        pwrite = os.pwrite

        def full(descriptor: int, data: Any, offset: int) -> int:
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done = pwrite(descriptor, bytes(data)[: left[0]], offset)
            left[0] -= done
            return done

        more = numbered(9000, start=150)
        with DatasetWriter(path, append=True) as w:
            monkeypatch.setattr(os, "pwrite", full)
            with pytest.raises(StorageError, match="make room") as caught:
                write_and_commit(w, more)
            assert caught.value.errno == errno.ENOSPC
            assert Path(caught.value.filename).parent == path
            assert_holds(path, FIRST)
            left[0] = 1 << 40
            written = w.rows - len(FIRST)
            w.write_many(more[written:])
            w.commit()
        assert_holds(path, FIRST + more)

    def test_a_failed_write_did_not_take_its_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(buffer, "PENDING_NBYTES", 100)
        with DatasetWriter(tmp_path / "ds", bins=2) as w:
            taken: list[bytes] = []
            failures = 0
            pwrite = os.pwrite
            for n in range(50):
                record = b"%50d" % n
                if n % 5 == 3:
                    monkeypatch.setattr(os, "pwrite", lambda *_: _raise(errno.ENOSPC))
                try:
                    w.write(record)
                except StorageError:
                    failures += 1
                    monkeypatch.setattr(os, "pwrite", pwrite)
                    w.write(record)
                taken.append(record)
                monkeypatch.setattr(os, "pwrite", pwrite)
            assert failures
            assert w.rows == 50
        assert_holds(tmp_path / "ds", taken)

    def test_giving_up_on_a_full_disk_keeps_the_last_commit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_path / "ds", FIRST)

        def fill_the_disk(records: list[bytes]) -> None:
            with DatasetWriter(path, append=True) as w:
                w.write_many(records)
                monkeypatch.setattr(os, "pwrite", lambda *_: _raise(errno.ENOSPC))

        with pytest.raises(StorageError):
            fill_the_disk(SECOND)
        monkeypatch.undo()
        assert_holds(path, FIRST)
        append(path)
        assert_holds(path, FIRST + SECOND)

    def test_short_writes_are_continued(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data)[:7], at))
        with DatasetWriter(tmp_path / "ds", bins=3) as w:
            w.write_many(FIRST)
        monkeypatch.undo()
        assert_holds(tmp_path / "ds", FIRST)


def write_and_commit(w: DatasetWriter, records: list[bytes]) -> None:
    w.write_many(records)
    w.commit()


def _raise(number: int) -> int:
    raise OSError(number, os.strerror(number))


class TestReadOnly:
    """Root may write anywhere, so the system's refusal is put in by hand."""

    def test_a_directory_that_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_path / "ds", FIRST)
        real = os.open

        def refusing(name: Any, flags: int, *rest: Any, **options: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
            return real(name, flags, *rest, **options)

        monkeypatch.setattr(os, "open", refusing)
        with pytest.raises(StorageError, match="cannot lock the dataset for writing") as caught:
            DatasetWriter(path, append=True)
        assert caught.value.errno == errno.EACCES
        assert caught.value.filename == str(path / "writer.lock")
        assert_holds(path, FIRST)

    def test_a_parent_that_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "mkdir", lambda *_: _raise(errno.EROFS))
        with pytest.raises(StorageError, match="cannot create the directory") as caught:
            DatasetWriter(tmp_path / "ds")
        assert caught.value.errno == errno.EROFS

    def test_a_directory_that_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_path / "ds", FIRST)
        monkeypatch.setattr(os, "open", lambda *_, **__: _raise(errno.EACCES))
        with pytest.raises(StorageError) as caught:
            open_dataset(path)
        assert caught.value.errno == errno.EACCES


class TestTwoWriters:
    def test_the_second_is_refused_by_name_until_the_first_is_gone(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", FIRST)
        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                w = DatasetWriter(path, append=True)
                w.write_many(SECOND)
                w.flush()
                os.write(ready[1], b"r")
                os.read(go[0], 1)
            finally:
                os._exit(1)
        os.read(ready[0], 1)
        cases: list[dict[str, Any]] = [{"append": True}, {"overwrite": True}]
        for options in cases:
            with pytest.raises(LockedError, match=rf"process {pid} on \S+, since 20"):
                DatasetWriter(path, **options)
        assert_holds(path, FIRST)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for descriptor in (*ready, *go):
            os.close(descriptor)
        append(path)
        assert_holds(path, FIRST + SECOND)

    def test_a_forked_child_does_not_hold_the_lock(self, tmp_path: Path) -> None:
        path = tmp_path / "ds"
        go = os.pipe()
        with DatasetWriter(path) as w:
            w.write(b"x")
            pid = os.fork()
            if pid == 0:
                os.close(go[1])
                os.read(go[0], 1)
                os._exit(0)
        append(path)
        for descriptor in go:
            os.close(descriptor)
        os.waitpid(pid, 0)
        assert_holds(path, [b"x", *SECOND])

    def test_a_forked_child_cannot_write(self, tmp_path: Path) -> None:
        with DatasetWriter(tmp_path / "ds") as w:
            w.write(b"x")

            def use() -> None:
                with pytest.raises(StorageError, match="belongs to the parent"):
                    w.commit()

            assert in_child(use) == 0
        assert_holds(tmp_path / "ds", [b"x"])


def test_a_lock_file_with_nonsense_in_it_is_no_obstacle(tmp_path: Path) -> None:
    path = write(tmp_path / "ds", FIRST)
    for text in (b"", b"\xff" * 2000, b'{"writes": {"volume": -1, "first_bin": [], "bins": 1e9}}'):
        (path / "writer.lock").write_bytes(text)
        with DatasetWriter(path, append=True):
            pass
    assert check_dataset(path).ok
    with pytest.raises(FormatError):
        open_dataset(tmp_path)
