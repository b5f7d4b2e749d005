"""What is left when the power fails: a mark that survives says the truth.

What the page cache holds may be on the disk or not, in any order, except for what was synced. So:
when a mark says that a block is there for certain, its bytes were synced since they were written;
and before these bytes are changed or given back, a sync has taken the mark away. Both are watched
here at every call that changes a file.
"""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from splitpipe.cache import BlockCache, CachedFile, account, files
from splitpipe.cache.marks import DURABLE, MarkFile
from splitpipe.cache.state import this_boot
from tests.cache.sources import CountingStore, noise

BLOCK = 1 << 14
MB = 1 << 20


class Disk:
    """What may be on the disk of one object, and what must not be.

    Args:
        marks: of the object.
    """

    def __init__(self, marks: MarkFile, *, data: str, path: str) -> None:
        count = marks.identity.blocks
        self._marks = marks
        self._data, self._path = data, path
        self._journal = os.path.join(os.path.dirname(path), "..", "..", "evicted")
        # By block: whether its mark may be on the disk; whether its bytes are, for certain.
        self.said = np.zeros(count, bool)
        self.certain = np.zeros(count, bool)
        self.seen = self.journalled = 0

    def _look(self) -> npt.NDArray[np.bool_]:
        now = (self._marks.marks & np.uint64(DURABLE)) != 0
        assert not (now & ~self.certain).any(), "a mark says more than the disk holds"
        self.said |= now
        self.seen += int(now.any())
        return now

    def change(self, descriptor: int, start: int, nbytes: int) -> None:
        self._look()
        if self._is(descriptor, self._data):
            blocks = slice(start // BLOCK, -(-(start + nbytes) // BLOCK))
            assert not self.said[blocks].any(), "a mark on the disk would outlive its bytes"
            self.certain[blocks] = False

    def sync(self, descriptor: int) -> None:
        now = self._look()
        if self._is(descriptor, self._data):
            self.certain[:] = self._marks.marks != 0
        elif self._is(descriptor, self._path):
            self.said = now.copy()
        elif self._is(descriptor, self._journal):
            # What it names is cleared after a restart, whatever its mark says.
            self.journalled += 1
            with open(self._journal, "rb") as file:
                for _, first, count in struct.iter_unpack("<16sQQ", file.read()):
                    self.said[first : first + count] = now[first : first + count]

    def _is(self, descriptor: int, path: str) -> bool:
        return os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path))


def watched(file: CachedFile, patch: pytest.MonkeyPatch) -> Disk:
    opened = file._opened
    disk = Disk(
        opened.marks,
        data=opened.path,
        path=opened.space.layout.marks(opened.identity.digest),
    )
    write_at, punch_hole, sync = files.write_at, files.punch_hole, files.sync

    def wrote(descriptor: int, data: bytes, offset: int) -> None:
        disk.change(descriptor, offset, len(data))
        write_at(descriptor, data, offset)

    def punched(descriptor: int, start: int, nbytes: int) -> bool:
        disk.change(descriptor, start, nbytes)
        return punch_hole(descriptor, start, nbytes)

    def synced(descriptor: int) -> None:
        sync(descriptor)
        disk.sync(descriptor)

    patch.setattr(files, "write_at", wrote)
    patch.setattr(files, "punch_hole", punched)
    patch.setattr(files, "sync", synced)
    return disk


def test_no_mark_outlives_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CountingStore()
    store.write("a", noise(4 * MB))
    rng = np.random.default_rng(5)
    with (
        BlockCache(tmp_path, MB, requests=2) as cache,
        cache.open(store, "a", block_nbytes=BLOCK) as file,
    ):
        disk = watched(file, monkeypatch)
        for turn in range(120):
            start = int(rng.integers(0, 4 * MB - 5 * BLOCK))
            file.ensure([(start, start + int(rng.integers(1, 4 * BLOCK)))])
            if turn % 5 == 0:
                file._opened.make_durable()
            if turn % 7 == 0:
                file.invalidate([(start, start + 1)])
        assert disk.seen > 20
        assert disk.journalled > 5
        assert cache.statistics().evicted_nbytes > 2 * MB


def test_what_was_not_synced_is_gone_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CountingStore()
    store.write("a", noise(16 * BLOCK))
    with (
        BlockCache(tmp_path, MB) as cache,
        cache.open(store, "a", block_nbytes=BLOCK) as file,
    ):
        file.ensure([(0, 4 * BLOCK)])
        file._opened.make_durable()
        file.ensure([(8 * BLOCK, 12 * BLOCK)])
        file._opened.fresh = False
        path = file.path
    # The power fails: some pages of what was not synced are lost.
    with open(path, "r+b") as local:
        local.seek(9 * BLOCK)
        local.write(bytes(BLOCK))
    monkeypatch.setattr(account, "this_boot", lambda: this_boot() ^ 1)
    with (
        BlockCache(tmp_path, MB) as cache,
        cache.open(store, "a", block_nbytes=BLOCK) as file,
    ):
        assert np.flatnonzero(file.marks).tolist() == [0, 1, 2, 3]
        assert os.stat(path).st_blocks * 512 <= 5 * BLOCK
        statistics = cache.statistics()
        assert statistics.used_nbytes == 4 * BLOCK + file._opened.identity.overhead_nbytes
        assert file.read(0, file.size) == noise(16 * BLOCK)


def test_a_restart_with_others_at_work_is_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from splitpipe.errors import StorageError

    with BlockCache(tmp_path, MB):
        monkeypatch.setattr(account, "this_boot", lambda: this_boot() ^ 1)
        with pytest.raises(StorageError, match="another machine"):
            BlockCache(tmp_path, MB)


def test_closing_makes_durable_what_came(tmp_path: Path) -> None:
    store = CountingStore()
    store.write("a", noise(4 * MB))
    with BlockCache(tmp_path, 8 * MB) as cache, cache.open(store, "a", block_nbytes=BLOCK) as file:
        token = file.ensure([(0, file.size)])
        marks = file.marks
        file.close()
        assert (marks & np.uint64(DURABLE) != 0).all()
        cache.evictions  # noqa: B018  # unchanged: nothing went
        assert token.still_valid()


def test_a_long_session_makes_durable_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from splitpipe.cache import space

    monkeypatch.setattr(space, "_FRESH_NBYTES", 4 * BLOCK)
    store, pause = CountingStore(), threading.Event()
    store.write("a", noise(4 * MB))
    with BlockCache(tmp_path, MB) as cache, cache.open(store, "a", block_nbytes=BLOCK) as file:
        for start in range(0, 16 * BLOCK, BLOCK):
            file.ensure([(start, start + BLOCK)])
        while cache._pool._idle < len(cache._pool._threads):
            pause.wait(0.001)
        assert (file.marks & np.uint64(DURABLE) != 0).sum() >= 4


@pytest.mark.parametrize("what", ["data gone", "data another", "marks cut", "marks noise"])
def test_files_that_do_not_belong_together_are_made_anew(tmp_path: Path, what: str) -> None:
    store = CountingStore()
    store.write("a", noise(16 * BLOCK))
    with BlockCache(tmp_path, MB) as cache, cache.open(store, "a", block_nbytes=BLOCK) as file:
        file.ensure([(0, file.size)])
        data = Path(file.path)
    marks = data.with_suffix(".marks")
    if what == "data gone":
        data.unlink()
    elif what == "data another":
        copy = data.with_suffix(".copy")
        copy.write_bytes(bytes(16 * BLOCK))
        copy.replace(data)
    elif what == "marks cut":
        os.truncate(marks, 5000 if marks.stat().st_size > 5000 else 100)
    else:
        marks.write_bytes(noise(marks.stat().st_size))
    with BlockCache(tmp_path, MB) as cache, cache.open(store, "a", block_nbytes=BLOCK) as file:
        assert file.read(0, file.size) == noise(16 * BLOCK)
        assert file.ensure([(0, file.size)]).still_valid()


def test_what_was_thrown_out_before_a_restart_stays_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marks on the disk may be older than the journal, which is on it for certain."""
    store = CountingStore()
    store.write("a", noise(32 * BLOCK))
    with BlockCache(tmp_path, MB) as cache, cache.open(store, "a", block_nbytes=BLOCK) as file:
        file.ensure([(0, file.size)])
        file._opened.make_durable()
        marks = Path(cache._layout.marks(file._opened.identity.digest))
        before = marks.read_bytes()
        cache.prune(16 * BLOCK)
        there = np.flatnonzero(file.marks).tolist()
        assert 4 < len(there) < 24
    assert (tmp_path / "evicted").stat().st_size > 0
    marks.write_bytes(before)  # the power fails: the clearing of the marks was not written
    monkeypatch.setattr(account, "this_boot", lambda: this_boot() ^ 1)
    with BlockCache(tmp_path, MB) as cache, cache.open(store, "a", block_nbytes=BLOCK) as file:
        assert np.flatnonzero(file.marks).tolist() == there
        assert file.read(0, file.size) == noise(32 * BLOCK)
    assert (tmp_path / "evicted").stat().st_size == 0


def test_a_journal_does_not_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from splitpipe.cache import journal

    monkeypatch.setattr(journal, "_MOST_NBYTES", 256)
    store = CountingStore()
    store.write("a", noise(4 * MB))
    with BlockCache(tmp_path, MB) as cache, cache.open(store, "a", block_nbytes=BLOCK) as file:
        for start in range(0, 4 * MB, MB // 4):
            file.ensure([(start, start + MB // 4)])
            file._opened.make_durable()
        assert 0 < (tmp_path / "evicted").stat().st_size < 1024
