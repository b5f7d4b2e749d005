"""How often is asked again, how long is waited, and what is never asked again."""

from __future__ import annotations

import errno
import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe.errors import CorruptRecord, DatasetChanged, RemoteError, StorageError
from splitpipe.stores import ABSENT, MemoryStore, ObjectStat, RetryingStore, RetryPolicy, Timeouts
from splitpipe.stores.failures import remote_error, retry_after
from splitpipe.stores.patience import LEAST_S, Patience, attempting


class Troubled(MemoryStore):
    """Raises what it is told to, before or after the work, and then works."""

    def __init__(self, *troubles: BaseException, after: bool = False) -> None:
        super().__init__("memory://troubled/")
        self.troubles = list(troubles)
        self.after = after
        self.asked = 0

    def _meet(self, work: Callable[[], Any]) -> Any:
        self.asked += 1
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None and not self.after:
            raise trouble
        done = work()
        if trouble is not None:
            raise trouble
        return done

    def stat(self, key: str) -> ObjectStat:
        return self._meet(lambda: MemoryStore.stat(self, key))  # type: ignore[no-any-return]

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        write = MemoryStore.write
        return self._meet(lambda: write(self, key, data, expected=expected))  # type: ignore[no-any-return]

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        for number, found in enumerate(super().list(prefix)):
            if number == 2 and self.troubles:
                raise self.troubles.pop(0)
            yield found


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def passing(*, maybe_done: bool = False, wait_s: float | None = None) -> RemoteError:
    return remote_error(
        errno.EBUSY, "busy", "x", transient=True, maybe_done=maybe_done, retry_after_s=wait_s
    )


def retrying(store: MemoryStore, clock: Clock, **policy: Any) -> RetryingStore:
    return RetryingStore(
        store, RetryPolicy(**policy), rng=random.Random(1), clock=clock, sleep=clock.sleep
    )


def test_it_asks_until_there_is_an_answer() -> None:
    clock, store = Clock(), Troubled(*(passing() for _ in range(3)))
    MemoryStore.write(store, "a", b"hello")
    again = retrying(store, clock)
    assert again.stat("a").size == 5
    told = again.statistics()
    assert (told.requests, told.retries, told.failures) == (4, 3, 0)
    assert told.waited_s == pytest.approx(sum(clock.slept))


def test_waiting_grows_with_full_jitter() -> None:
    many: list[list[float]] = []
    for seed in range(100):
        clock = Clock()
        again = RetryingStore(
            Troubled(*(passing() for _ in range(9))),
            RetryPolicy(attempts=6, base_s=1.0, longest_s=5.0, deadline_s=1e9),
            rng=random.Random(seed),
            clock=clock,
            sleep=clock.sleep,
        )
        with pytest.raises(RemoteError):
            again.stat("a")
        many.append(clock.slept)
    for number, longest in enumerate([1, 2, 4, 5, 5]):
        waits = [slept[number] for slept in many]
        assert max(waits) <= longest
        assert max(waits) > 0.9 * longest
        assert min(waits) < 0.1 * longest
        assert sum(waits) / len(waits) == pytest.approx(longest / 2, rel=0.25)


def test_a_connection_that_broke_is_tried_again_at_once_and_then_waited_for() -> None:
    broken = [remote_error(errno.ECONNRESET, "it broke", "x", transient=True) for _ in range(3)]
    clock, store = Clock(), Troubled(*broken)
    MemoryStore.write(store, "a", b"hello")
    assert retrying(store, clock, attempts=9, base_s=1.0).stat("a").size == 5
    first, *others = clock.slept
    assert first == 0.0
    assert all(pause > 0.0 for pause in others)


def test_the_deadline_ends_it_before_the_attempts() -> None:
    clock, store = Clock(), Troubled(*(passing() for _ in range(100)))
    again = retrying(store, clock, attempts=100, base_s=1.0, longest_s=4.0, deadline_s=10.0)
    with pytest.raises(RemoteError, match=r"given up after \d+ attempts in \d+\.\d s"):
        again.stat("a")
    assert clock.now - 1000.0 <= 10.0
    assert 3 < store.asked < 50


def test_the_time_for_a_request_grows_only_where_it_was_too_short() -> None:
    clock = Clock()
    stalled = remote_error(errno.ETIMEDOUT, "slow", "x", transient=True)
    patience = Patience(Timeouts())
    allowed: list[float] = []

    class Slow(Troubled):
        def stat(self, key: str) -> ObjectStat:
            allowed.append(patience.allowed(0)[0])
            return super().stat(key)

    store = Slow(passing(), stalled, passing(), stalled, passing())
    MemoryStore.write(store, "a", b"x")
    retrying(store, clock).stat("a")
    assert allowed == [2.0, 2.0, 4.0, 4.0, 8.0, 8.0]


def test_what_the_server_asks_for_is_waited_at_least() -> None:
    clock, store = Clock(), Troubled(passing(wait_s=7.0))
    MemoryStore.write(store, "a", b"hello")
    retrying(store, clock, base_s=0.5).stat("a")
    assert 7.0 <= clock.slept[0] <= 7.5


@pytest.mark.parametrize("wait_s", [61.0, 1e9])
def test_what_the_server_asks_for_has_bounds(wait_s: float) -> None:
    clock, store = Clock(), Troubled(passing(wait_s=wait_s))
    with pytest.raises(RemoteError):
        retrying(store, clock, retry_after_s=60.0).stat("a")
    assert clock.slept == []


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    clock, store = Clock(), Troubled(passing(wait_s=30.0))
    with pytest.raises(RemoteError):
        retrying(store, clock, deadline_s=20.0).stat("a")
    assert clock.slept == []


@pytest.mark.parametrize(
    "error",
    [
        StorageError(errno.ENOENT, "none", "a"),
        StorageError(errno.EACCES, "no", "a"),
        StorageError(errno.ERANGE, "short", "a"),
        DatasetChanged(errno.ESTALE, "changed", "a"),
        remote_error(errno.EPROTO, "never", "a"),
        CorruptRecord("bad"),
        ValueError("mine"),
        KeyboardInterrupt(),
    ],
)
def test_what_will_not_pass_is_not_asked_again(error: BaseException) -> None:
    clock, store = Clock(), Troubled(error)
    with pytest.raises(type(error)) as caught:
        retrying(store, clock).stat("a")
    assert store.asked == 1
    assert clock.slept == []
    if not isinstance(error, RemoteError):
        assert caught.value is error


def test_the_error_at_the_end_keeps_what_it_knew() -> None:
    clock, store = Clock(), Troubled(passing(), passing(wait_s=2.0, maybe_done=True))
    with pytest.raises(RemoteError) as caught:
        retrying(store, clock, attempts=2).stat("a")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.errno, error.filename) == (errno.EBUSY, "x")
    assert (error.transient, error.maybe_done, error.retry_after_s) == (True, True, 2.0)
    assert "busy; given up after 2 attempts" in str(error)
    assert isinstance(caught.value.__cause__, RemoteError)


def test_a_listing_goes_on_where_it_broke_off() -> None:
    clock, store = Clock(), Troubled(passing(), passing())
    for name in "abcdef":
        MemoryStore.write(store, name, name.encode())
    again = retrying(store, clock)
    assert [key for key, _ in again.list()] == list("abcdef")
    assert len(clock.slept) == 2


# -- writes


def test_a_write_that_was_not_done_is_repeated() -> None:
    clock, store = Clock(), Troubled(passing(), passing())
    assert retrying(store, clock).write("a", b"x").size == 1
    assert store.asked == 3


def test_a_write_that_may_have_been_done_is_not_repeated_without_a_condition() -> None:
    clock, store = Clock(), Troubled(passing(maybe_done=True), after=True)
    with pytest.raises(RemoteError, match="not known"):
        retrying(store, clock).write("a", b"x")
    assert store.asked == 1


def test_a_conditional_write_that_was_done_is_found_to_be_ours() -> None:
    clock, store = Clock(), Troubled(passing(maybe_done=True), after=True)
    stat = retrying(store, clock).write("a", b"x", expected=ABSENT)
    assert stat == MemoryStore.stat(store, "a")


def test_a_conditional_write_that_another_one_made_is_not_ours() -> None:
    clock, store = Clock(), Troubled(passing(maybe_done=True))
    MemoryStore.write(store, "a", b"y")
    with pytest.raises(DatasetChanged):
        retrying(store, clock).write("a", b"x", expected=ABSENT)
    assert store.read("a") == b"y"


def test_the_same_bytes_that_were_there_before_are_not_taken_for_ours() -> None:
    """Without a lost answer a condition that fails is somebody else's, whatever the bytes."""
    store = MemoryStore()
    store.write("a", b"x")
    with pytest.raises(DatasetChanged):
        RetryingStore(store).write("a", b"x", expected=ABSENT)


def test_looking_whether_it_is_ours_may_fail_for_a_while_too() -> None:
    clock = Clock()
    store = Troubled(passing(maybe_done=True), after=True)
    again = retrying(store, clock)
    MemoryStore.write(store, "a", b"x")
    store.after = False
    store.troubles = [passing(maybe_done=True), DatasetChanged(errno.ESTALE, "x"), passing()]
    assert again.write("a", b"x", expected=ABSENT).size == 1


def test_counts_add_up() -> None:
    again = RetryingStore(MemoryStore())
    again.write("a", b"hello")
    again.read("a", 1, 3)
    with pytest.raises(StorageError):
        again.read("b")
    told = again.statistics()
    assert (told.nbytes_read, told.nbytes_written, told.requests) == (2, 5, 3)


# -- numbers


def test_a_date_is_waited_for_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 978307200.0)  # 2001-01-01 00:00:00
    assert retry_after("Mon, 01 Jan 2001 00:00:10 GMT") == pytest.approx(10.0)
    assert retry_after("Sun, 31 Dec 2000 23:00:00 GMT") == 0.0


@pytest.mark.parametrize("told", ["", None, "soon", "nan", "inf", "-1", "1e400", "Mon, 99 Foo"])
def test_a_wait_that_makes_no_sense_is_none(told: str | None) -> None:
    assert retry_after(told) in (None, 0.0)


@given(st.text(max_size=30))
def test_no_header_ends_a_reader(told: str) -> None:
    seconds = retry_after(told)
    assert seconds is None or seconds >= 0


def test_policies_that_cannot_be_followed_are_refused() -> None:
    for policy in ({"attempts": 0}, {"base_s": -1.0}, {"deadline_s": -1.0}):
        with pytest.raises(ValueError, match="cannot be followed"):
            RetryPolicy(**policy)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="never let"):
        Timeouts(stall_s=0)


# -- patience


@settings(max_examples=40)
@given(st.lists(st.floats(0.0001, 100.0), min_size=16, max_size=60), st.integers(0, 8))
def test_patience_is_between_its_limits_and_grows(took: list[float], attempt: int) -> None:
    patience = Patience(Timeouts())
    for seconds in took:
        patience.took(seconds, 1 << 17, seconds)
    allowed = [
        attempting(number, lambda: patience.allowed(1 << 20)) for number in (attempt, attempt + 1)
    ]
    assert LEAST_S <= allowed[0][0] <= allowed[1][0] <= 20.0
    assert allowed[0][1] <= allowed[1][1] <= 20.0 + (1 << 20) / 16_384
    assert attempting(9, lambda: patience.allowed(0))[0] == 20.0
    assert patience.allowed(0)[0] == 20.0  # nobody would repeat it
