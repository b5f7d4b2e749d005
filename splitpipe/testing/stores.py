"""What every store has to do.

Responsible for: `StoreSuite`, the rules of `splitpipe.stores.base` as tests. They know nothing of
any store.

Example, in a test module:

    class TestLocal(StoreSuite):
        @pytest.fixture
        def store(self, tmp_path):
            return LocalStore(tmp_path)
"""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from splitpipe.errors import DatasetChanged, FormatError, StorageError
from splitpipe.stores.base import ABSENT, Store
from splitpipe.testing.faults.children import run_in_child

__all__ = ["StoreSuite"]

DATA = bytes(range(256)) * 41
LENGTH = len(DATA)

Put = Callable[[str, bytes], None]


class StoreSuite:
    """Subclass it and give it a fixture ``store``, an empty one; see the rules of `Store`.

    A store that cannot be written to sets `writes` to false and has a fixture ``put``, which puts
    objects there in another way.
    """

    writes: ClassVar[bool] = True
    """Whether it can be written to."""

    conditions: ClassVar[bool] = True
    """Whether a write may have a condition."""

    lists: ClassVar[bool] = True
    """Whether it can list what it has."""

    tags: ClassVar[bool] = True
    """Whether it can tell versions apart."""

    travels: ClassVar[bool] = True
    """Whether it can be pickled."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("give the suite a fixture named store")

    @pytest.fixture
    def put(self, store: Store) -> Put:
        def put(key: str, data: bytes) -> None:
            store.write(key, data)

        return put

    # -- reading

    @pytest.mark.parametrize("size", [0, 1, 255, 4096, 300_001])
    def test_an_object_is_read_as_it_was_put(self, store: Store, put: Put, size: int) -> None:
        data = os.urandom(size)
        put("a", data)
        assert store.read("a") == data
        assert store.stat("a").size == size

    @pytest.mark.parametrize(
        ("start", "stop"),
        [
            (0, 1),
            (0, LENGTH),
            (10, 20),
            (LENGTH - 1, LENGTH),
            (5, None),
            (0, None),
            (0, 0),
            (7, 7),
            (LENGTH, LENGTH),
            (LENGTH, None),
        ],
    )
    def test_a_range_is_exactly_that(
        self, store: Store, put: Put, start: int, stop: int | None
    ) -> None:
        put("a", DATA)
        data = store.read("a", start, stop)
        assert type(data) is bytes
        assert data == DATA[start:stop]

    @pytest.mark.parametrize(
        ("start", "stop"),
        [
            (0, LENGTH + 1),
            (LENGTH - 1, LENGTH + 1),
            (LENGTH + 1, LENGTH + 2),
            (LENGTH + 1, None),
            (LENGTH + 5, LENGTH + 5),
            (5, 4),
            (-1, 5),
        ],
    )
    def test_bytes_that_are_not_there_are_an_error(
        self, store: Store, put: Put, start: int, stop: int | None
    ) -> None:
        put("a", DATA)
        with pytest.raises(StorageError) as caught:
            store.read("a", start, stop)
        assert caught.value.errno == errno.ERANGE

    def test_what_is_not_there_is_said_to_be_missing(self, store: Store, put: Put) -> None:
        put("a", DATA)
        asked: list[Callable[[], object]] = [
            lambda: store.stat("b"),
            lambda: store.read("b"),
            lambda: store.read("b", 0, 1),
            lambda: store.read("b", 0, 0),
            lambda: store.stat("a/b"),
            lambda: store.read("folder/a"),
        ]
        for ask in asked:
            with pytest.raises(StorageError) as caught:
                ask()
            assert caught.value.errno == errno.ENOENT
            assert "b" in str(caught.value) or "folder/a" in str(caught.value)

    def test_a_folder_is_no_object(self, store: Store, put: Put) -> None:
        put("folder/a", DATA)
        for ask in (store.stat, store.read):
            with pytest.raises(StorageError) as caught:
                ask("folder")
            assert caught.value.errno == errno.ENOENT

    @pytest.mark.parametrize(
        "key", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "b\0", "x:/y"]
    )
    def test_a_key_that_leads_elsewhere_is_refused(self, store: Store, key: str) -> None:
        asked: list[Callable[[], object]] = [lambda: store.stat(key), lambda: store.read(key, 0, 1)]
        if self.writes:
            asked.append(lambda: store.write(key, b"x"))
        for ask in asked:
            with pytest.raises(FormatError):
                ask()

    @pytest.mark.parametrize(
        "key", ["a b", "a+b", "ü/ñ/日本", "a&b=c", "deep/er/and/deeper", "a'b"]
    )
    def test_keys_may_have_any_name(self, store: Store, put: Put, key: str) -> None:
        put(key, DATA)
        assert store.read(key, 3, 9) == DATA[3:9]
        if self.lists:
            assert [found for found, _ in store.list()] == [key]

    def test_many_threads_read_at_once(self, store: Store, put: Put) -> None:
        put("a", DATA)
        store.stat("a")
        begin = threading.Barrier(8)

        def read(number: int) -> bool:
            if number < 8:
                begin.wait(20)
            start = number * 37 % len(DATA)
            return store.read("a", start, start + 1) == DATA[start : start + 1]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(100)))

    # -- versions

    def test_a_version_is_named_until_it_changes(self, store: Store, put: Put) -> None:
        if not self.tags:
            pytest.skip("it cannot tell versions apart")
        put("a", DATA)
        stat = store.stat("a")
        assert stat.tag
        assert store.stat("a") == stat
        assert store.read("a", 2, 5, tag=stat.tag) == DATA[2:5]
        assert store.read("a", tag=stat.tag) == DATA
        assert store.read("a", 5, 5, tag=stat.tag) == b""

    @pytest.mark.parametrize("other", [b"x" * len(DATA), DATA + b"more", DATA[:5]])
    def test_another_version_is_never_read_in_its_place(
        self, store: Store, put: Put, other: bytes
    ) -> None:
        if not self.tags:
            pytest.skip("it cannot tell versions apart")
        put("a", DATA)
        tag = store.stat("a").tag
        put("a", other)
        for start, stop in ((2, 5), (0, None), (3, 3)):
            with pytest.raises(DatasetChanged):
                store.read("a", start, stop, tag=tag)
        assert store.stat("a").tag != tag
        assert store.read("a", tag=store.stat("a").tag) == other

    # -- listing

    def test_a_listing_is_sorted_and_whole(self, store: Store, put: Put) -> None:
        if not self.lists:
            with pytest.raises(StorageError) as caught:
                next(iter(store.list()))
            assert caught.value.errno == errno.ENOTSUP
            return
        assert list(store.list()) == []
        for key in ("b", "a/z", "a/b/c", "a-b", "c"):
            put(key, key.encode())
        assert [key for key, _ in store.list()] == ["a-b", "a/b/c", "a/z", "b", "c"]
        assert [key for key, _ in store.list("a/")] == ["a/b/c", "a/z"]
        assert [key for key, _ in store.list("a")] == ["a-b", "a/b/c", "a/z"]
        assert [key for key, _ in store.list("a/b")] == ["a/b/c"]
        assert list(store.list("none/")) == []
        assert dict(store.list()) == {key: store.stat(key) for key, _ in store.list()}

    # -- writing

    def test_a_write_says_what_is_there_then(self, store: Store) -> None:
        if not self.writes:
            self._refuses(store)
            return
        stat = store.write("a", DATA)
        assert stat == store.stat("a")
        assert stat.size == len(DATA)

    def test_any_buffer_is_written(self, store: Store) -> None:
        if not self.writes:
            self._refuses(store)
            return
        buffers: list[Any] = [bytearray(DATA), memoryview(DATA)]
        for buffer in buffers:
            store.write("a", buffer)
            assert store.read("a") == DATA

    def test_a_write_without_a_condition_replaces(self, store: Store) -> None:
        if not self.writes:
            self._refuses(store)
            return
        for data in (DATA, b"", DATA[:7]):
            store.write("a", data)
            assert store.read("a") == data

    def test_only_the_first_write_of_what_is_absent_is_done(self, store: Store) -> None:
        if not self.conditions:
            self._refuses(store, expected=ABSENT)
            return
        store.write("a", b"one", expected=ABSENT)
        with pytest.raises(DatasetChanged):
            store.write("a", b"two", expected=ABSENT)
        assert store.read("a") == b"one"

    def test_a_version_is_replaced_once(self, store: Store) -> None:
        if not self.conditions:
            self._refuses(store, expected="x")
            return
        first = store.write("a", b"one", expected=ABSENT)
        second = store.write("a", b"two", expected=first.tag)
        with pytest.raises(DatasetChanged):
            store.write("a", b"three", expected=first.tag)
        assert store.read("a", tag=second.tag) == b"two"

    def test_a_version_of_what_is_absent_is_not_replaced(self, store: Store) -> None:
        if not self.conditions:
            self._refuses(store, expected="x")
            return
        tag = store.write("a", b"one").tag
        with pytest.raises(DatasetChanged):
            store.write("b", b"two", expected=tag)
        with pytest.raises(StorageError):
            store.stat("b")

    def test_one_of_many_writers_at_once_wins(self, store: Store) -> None:
        if not self.conditions:
            self._refuses(store, expected=ABSENT)
            return
        begin = threading.Barrier(6)

        def write(number: int) -> int | None:
            begin.wait(20)
            try:
                store.write("a", b"%d" % number, expected=ABSENT)
            except DatasetChanged:
                return None
            return number

        with ThreadPoolExecutor(6) as pool:
            won = [number for number in pool.map(write, range(6)) if number is not None]
        assert [b"%d" % number for number in won] == [store.read("a")]

    # -- processes

    def test_it_works_on_in_a_forked_child(self, store: Store, put: Put) -> None:
        put("a", DATA)
        assert store.read("a", 0, 1) == DATA[:1]  # connected, that is

        def child() -> None:
            assert store.read("a", 10, 20) == DATA[10:20]
            assert store.stat("a").size == len(DATA)

        assert run_in_child(child) == 0
        assert store.read("a", 20, 30) == DATA[20:30]

    def test_it_pickles_as_what_connects_again(self, store: Store, put: Put) -> None:
        if not self.travels:
            pytest.skip("it stays where it is")
        put("a", DATA)
        other = pickle.loads(pickle.dumps(store))
        try:
            assert other.url == store.url
            assert other.read("a", 10, 20) == DATA[10:20]
        finally:
            other.close()

    # -- endings and texts

    def test_closing_twice_does_nothing(self, store: Store, put: Put) -> None:
        put("a", DATA)
        store.read("a")
        store.close()
        store.close()

    def test_its_repr_is_one_line_that_names_it(self, store: Store) -> None:
        text = repr(store)
        assert type(store).__name__ in text
        assert "\n" not in text

    def _refuses(self, store: Store, expected: str | None = None) -> None:
        with pytest.raises(StorageError) as caught:
            store.write("a", b"x", expected=expected)
        assert caught.value.errno == errno.ENOTSUP
