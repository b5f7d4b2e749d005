"""What goes wrong in user code, and what the consumer sees of it: what, where, and in its place."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from tests.runtime.comparing import read
from tests.sampling import sampled


class Odd(Exception):
    """Its constructor takes other arguments than its `args` say."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Local(Exception):
    """Cannot travel."""

    def __init__(self) -> None:
        super().__init__("local")
        self.line = (i for i in ())


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unrestorable:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


def failing(at: int, error: Callable[[], BaseException]) -> Callable[[int], int]:
    def decode(x: int) -> int:
        if x == at:
            raise error()
        return x

    return decode


def notes(error: BaseException | None) -> str:
    assert error is not None
    return "\n".join(error.__notes__)


@pytest.mark.parametrize(
    *sampled(2, at=[0, 5000, 9999], workers=[0, 1, 2], transport=["pipe", "zmq"])
)
def test_an_exception_comes_at_its_place_as_what_it_is(
    at: int, workers: int, transport: str
) -> None:
    pipe = sp.Pipeline(range(10_000)).map(failing(at, lambda: ValueError("bad")), workers=workers)
    got, error = read(pipe.loader(start_method="fork", transport=transport))
    assert got == list(range(at))
    assert type(error) is ValueError
    assert error.__context__ is None
    assert str(error) == "bad"
    text = notes(error)
    assert "stage 'decode'" in text
    assert f"input item {at}\n" in text + "\n"
    assert f"record {at} of range(0, 10000)" in text
    if workers:
        assert "traceback in the worker" in text
        assert "raise error()" in text


def test_the_record_of_a_shuffled_source_is_named() -> None:
    pipe = sp.Pipeline(range(500), shuffle="global", seed=2)
    order = list(pipe)
    at = order.index(123)
    for workers in (1, 2):
        bad = pipe.map(failing(123, lambda: KeyError("bad")), workers=workers)
        got, error = read(bad.loader(start_method="fork"))
        assert got == order[:at]
        assert "record 123 of range(0, 500)" in notes(error)


def test_in_each_stage_of_a_chain() -> None:
    def stream(items: Iterator[int]) -> Iterator[int]:
        yield from items

    def run(bad: str) -> tuple[list[Any], BaseException | None]:
        def stage(name: str) -> Callable[[int], int]:
            return failing(700 if name == bad else -1, lambda: ValueError(name))

        pipe = (
            sp.Pipeline(range(1000))
            .map(stage("one"), workers=2, name="one")
            .map(stage("two"), workers=2, name="two")
            .through(stream)
            .map(stage("three"), workers=1, name="three")
            .map(stage("four"), name="four")
            .map(stage("five"), workers=0, name="five")
        )
        return read(pipe.loader(start_method="fork"))

    for name in ("one", "two", "three", "four", "five"):
        got, error = run(name)
        assert got == list(range(700))
        assert type(error) is ValueError
        assert str(error) == name
        assert f"in stage {name!r}" in notes(error)


def test_in_the_source() -> None:
    class Sequence:
        def __len__(self) -> int:
            return 100

        def __getitem__(self, i: int) -> int:
            if i == 40:
                raise OSError("unreadable")
            return i

        def __repr__(self) -> str:
            return "records"

    for workers in (0, 1, 2):
        pipe = sp.Pipeline(Sequence()).map(int, workers=workers)
        got, error = read(pipe.loader(start_method="fork"))
        assert got == list(range(40))
        assert type(error) is OSError
        assert "in stage 'source'" in notes(error)
        assert "record 40 of records" in notes(error)


def test_a_later_generator_may_catch_it_as_it_could_in_one_process() -> None:
    def forgiving(items: Iterator[int]) -> Iterator[int]:
        try:
            yield from items
        except ValueError:
            yield -1

    bad = failing(500, ValueError)
    for source in (range(1000), lambda: iter(range(1000))):
        for workers in (1, 2):
            for capacity in (1, None):
                pipe = (
                    sp.Pipeline(source)
                    .map(bad, workers=workers, capacity=capacity)
                    .through(forgiving, workers=1)
                )
                with pipe.loader(start_method="fork", epochs=3) as loader:
                    assert list(loader) == [*range(500), -1] * 3


class TestWhatCannotTravel:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_an_item(self, workers: int) -> None:
        def stage(x: int) -> Any:
            return x if x != 30 else (i for i in ())

        pipe = sp.Pipeline(range(50)).map(stage, workers=workers)
        got, error = read(pipe.loader(start_method="fork"))
        assert got == list(range(30))
        assert type(error) is sp.NotPicklable
        assert "generator" in str(error)
        assert "stage 'stage'" in notes(error)
        assert "record 30 of" in notes(error)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_an_item_that_cannot_be_restored(self, workers: int) -> None:
        def source() -> Iterator[Any]:
            yield from range(3000)
            yield Unrestorable()
            yield -1

        pipe = sp.Pipeline(source).map(lambda x: x, workers=workers)
        got, error = read(pipe.map(lambda x: x, workers=1).loader(start_method="fork"))
        assert got == list(range(3000))
        assert type(error) is ValueError

    @pytest.mark.parametrize("workers", [1, 2])
    def test_an_item_that_cannot_be_restored_before_a_failure(self, workers: int) -> None:
        def parts(x: int) -> Iterator[Any]:
            yield [x]
            if x == 5:
                yield Unrestorable()
                raise KeyError("later than what cannot be restored")

        pipe = sp.Pipeline(range(9)).flat_map(parts, workers=workers)
        got, error = read(pipe.loader(start_method="fork"))
        assert got == [[x] for x in range(6)]
        assert type(error) is ValueError
        assert "not a number" in str(error)

    def test_an_exception(self) -> None:
        pipe = sp.Pipeline(range(9)).map(failing(5, Local), workers=1)
        got, error = read(pipe.loader(start_method="fork"))
        assert got == list(range(5))
        assert type(error) is sp.StageFailed
        assert "Local: local" in str(error)
        assert "stage 'decode'" in notes(error)
        assert "traceback in the worker" in notes(error)

    def test_a_stage_is_named_before_anything_starts(self) -> None:
        lock = (i for i in ())
        pipe = sp.Pipeline(range(3)).map(int).map(lambda x: (x, lock), name="locked")
        with pytest.raises(sp.NotPicklable, match="stage 'locked'"):
            pipe.loader()

    def test_a_source_is_said_before_anything_starts(self) -> None:
        lines = (i for i in ())
        with pytest.raises(sp.NotPicklable, match="the source cannot travel"):
            sp.Pipeline(lambda: lines).loader()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Odd(7, reason="odd"),
        Mute,
        lambda: OSError(2, "No such file", "x.txt"),
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        lambda: ExceptionGroup("several", [ValueError(1), KeyError("k")]),
    ],
    ids=["odd", "mute", "os", "unicode", "group"],
)
def test_exceptions_keep_their_type(make: Callable[[], Exception], workers: int) -> None:
    pipe = sp.Pipeline(range(9)).map(failing(5, make), workers=workers)
    got, error = read(pipe.loader(start_method="fork"))
    assert got == list(range(5))
    assert type(error) is type(make())
    assert error.args == make().args or isinstance(error, ExceptionGroup)
    assert getattr(error, "code", 7) == 7


class TestControlFlow:
    """An exception that means something to Python itself never ends an epoch quietly."""

    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_stop_iteration_in_a_function(self, workers: int) -> None:
        pipe = sp.Pipeline(range(9)).map(failing(5, StopIteration), workers=workers)
        got, error = read(pipe.loader(start_method="fork"))
        assert got == list(range(5))
        assert type(error) is RuntimeError
        assert "stage 'decode'" in notes(error)

    def test_stop_iteration_in_a_generator(self) -> None:
        def stream(items: Iterator[int]) -> Iterator[int]:
            for item in items:
                yield item + next(iter(()), 0) if item < 5 else next(iter(()))

        for workers in (0, 1):
            pipe = sp.Pipeline(range(9)).through(stream, workers=workers)
            got, error = read(pipe.loader(start_method="fork"))
            assert got == list(range(5))
            assert type(error) is RuntimeError

    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_what_would_end_a_process(self, kind: type[BaseException], workers: int) -> None:
        pipe = sp.Pipeline(range(9)).map(failing(5, kind), workers=workers)
        got, error = read(pipe.loader(start_method="fork"))
        assert got == list(range(5))
        assert type(error) is sp.StageFailed
        assert kind.__name__ in str(error)


def test_after_an_error_a_loader_never_looks_finished() -> None:
    with (
        sp.Pipeline(range(9))
        .map(failing(0, ValueError), workers=1)
        .loader(start_method="fork") as loader
    ):
        with pytest.raises(ValueError, match="in stage 'decode'"):
            next(loader)
        for _ in range(2):
            with pytest.raises(sp.PipelineError, match="ended with ValueError"):
                next(loader)
        with pytest.raises(sp.PipelineError):
            next(loader.by_epoch())


def killed(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def segfault() -> None:
    with contextlib.suppress(OSError):
        sys.stderr.close()  # faulthandler of the test run would write there
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


DEATHS: dict[str, tuple[Callable[[], None], str]] = {
    "kill": (killed(signal.SIGKILL), "killed by SIGKILL"),
    "segv": (segfault, "killed by SIGSEGV"),
    "term": (killed(signal.SIGTERM), "killed by SIGTERM"),
    "exit-0": (lambda: os._exit(0), "exit status 0"),
    "exit-3": (lambda: os._exit(3), "exit status 3"),
}


@pytest.mark.parametrize(
    *sampled(2, where=["first", "pool", "middle", "last"], how=DEATHS, transport=["pipe", "zmq"])
)
class TestDeath:
    """Where a worker dies x how it dies, and is not to be replaced: a `WorkerDied` that says both,
    and no hang. Where it is: test_recovery.py.
    """

    def pipeline(self, where: str, die: Callable[[], None], at: int = 60) -> sp.Pipeline:
        def stage(name: str) -> Callable[[int], int]:
            def run(x: int) -> int:
                if name == where and x == at:
                    die()
                return x

            return run

        return (
            sp.Pipeline(lambda: iter(range(1000)))
            .map(stage("first"), name="first", workers=1)
            .map(stage("pool"), name="pool", workers=2)
            .map(stage("middle"), name="middle", workers=1)
            .map(stage("last"), name="last", workers=1)
        )

    def test_in_the_middle_of_an_item(self, where: str, how: str, transport: str) -> None:
        die, said = DEATHS[how]
        pipe = self.pipeline(where, die)
        got, error = read(pipe.loader(start_method="fork", transport=transport, restarts=0))
        assert got == list(range(len(got)))
        assert len(got) <= 60
        assert type(error) is sp.WorkerDied
        assert f"of stage {where!r}" in str(error)
        assert said in str(error)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_death_while_idle_or_blocked(victim: int) -> None:
    """Workers that wait for the consumer are killed from outside."""
    pipe = (
        sp.Pipeline(lambda: iter(range(10**9)))
        .map(lambda x: np.full(50_000, x), name="a", workers=1)
        .map(lambda x: x, name="b", workers=2)
    )
    with pipe.loader(start_method="fork", prefetch=1, restarts=0) as loader:
        for _ in range(3):
            next(loader)
        pid = loader._run.supervisor.pids[victim]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(sp.WorkerDied, match=f"pid {pid}.*SIGKILL"):
            for _ in loader:
                pass


def test_a_worker_without_memory_for_a_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, nbytes: int) -> None:
        raise OSError(28, "No space left on device")

    def start(pipe: sp.Pipeline) -> sp.Loader:
        return pipe.loader(start_method="fork")

    small = sp.Pipeline(range(5)).map(lambda x: np.full(5000, x, np.uint8), workers=1)
    large = sp.Pipeline(range(5)).map(lambda x: np.full(500_000, x, np.uint8), workers=1)
    board = sp.Pipeline(range(1)).map(int, workers=1).loader(start_method="fork")
    board.close()
    monkeypatch.setattr("splitpipe.transport.arena.reserve", full)
    for pipe in (small, large):  # without an arena payloads lie in or beside the message
        with start(pipe) as loader:
            assert [int(x[0]) for x in loader] == [0, 1, 2, 3, 4]
    monkeypatch.setattr("splitpipe.transport.pipe.reserve", full)
    with start(small) as loader:
        assert [int(x[0]) for x in loader] == [0, 1, 2, 3, 4]
    got, error = read(start(large))
    assert got == []
    assert type(error) is sp.ChannelError
    assert "No space left" in str(error)
    assert "in worker 0 of <lambda>, outside of its stages" in error.__notes__
