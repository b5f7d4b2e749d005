"""Workers that begin anew in their processes when another has died, and spares."""

from __future__ import annotations

import contextlib
import multiprocessing.forkserver
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import splitpipe as sp
from splitpipe.runtime import keeper, reserve, standby
from splitpipe.runtime.keeper import Keeper
from splitpipe.runtime.reserve import Hand, Reserve
from splitpipe.runtime.standby import Line, Standby
from splitpipe.transport.anonymous import Descriptor
from splitpipe.transport.parcel import receive_parcel, send_parcel
from tests.runtime.comparing import frozen
from tests.runtime.dying import PATIENCE_S, deaths_of
from tests.runtime.test_recovery import GRAPHS, read, square

LONG_S = 30.0


def keeper_of(loader: sp.Loader) -> Keeper:
    made = loader._run.supervisor
    assert made is not None
    return made


def reserve_of(loader: sp.Loader) -> Reserve:
    return keeper_of(loader)._reserve


def spares_of(loader: sp.Loader) -> list[int]:
    return [spare.process.pid for spare in reserve_of(loader)._spares]


def is_no_spare(loader: sp.Loader, pid: int) -> bool:
    return pid not in spares_of(loader)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether a process ends, or has ended."""
    end = time.monotonic() + PATIENCE_S
    while psutil.pid_exists(pid) and time.monotonic() < end:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        threading.Event().wait(0.01)
    return not psutil.pid_exists(pid)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is ended because the machine is busy."""
    monkeypatch.setattr(keeper, "REPLACED_GRACE_S", LONG_S)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a spare as soon as anybody waits."""
    monkeypatch.setattr(reserve, "SPARE_AFTER_S", 0.0)
    monkeypatch.setattr(reserve, "SPARE_AGAIN_S", 0.0)


def until(loader: sp.Loader, true: Callable[[], bool]) -> list[Any]:
    """Read until something is so."""
    got = []
    end = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < end:
        got.append(next(loader))
    assert true()
    return got


def after_a_death(loader: sp.Loader, pid: int) -> list[Any]:
    """Kill a worker, and read until it was missed."""
    deaths = deaths_of(loader)
    kill(pid)
    return until(loader, lambda: deaths_of(loader) > deaths)


def with_pid(x: int) -> tuple[int, int]:
    return x, os.getpid()


def with_descriptors(x: int) -> tuple[int, int, int]:
    return x, os.getpid(), len(os.listdir("/proc/self/fd"))


def busily(x: int) -> int:
    sum(range(20_000))
    return x


def slowly(x: int) -> int:
    threading.Event().wait(0.002)
    return x


# --- who lives begins anew where it is --------------------------------------------------------


@pytest.mark.deadline(120)
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_who_lives_keeps_its_process(method: str) -> None:
    pipe = sp.Pipeline(range(10**6)).map(slowly, workers=3).map(abs, workers=1)
    with pipe.loader(start_method=method, prefetch=1, restarts=None) as loader:
        got = [next(loader)]
        for victim in (0, 3):
            before = keeper_of(loader).pids
            got += after_a_death(loader, before[victim])
            after = keeper_of(loader).pids
            assert set(before) - set(after) == {before[victim]}
            assert len(after) == 4
    assert got == list(range(len(got)))


@pytest.mark.deadline(120)
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("transport", ["pipe", "zmq"])
def test_nothing_of_earlier_work_is_kept(transport: str) -> None:
    """A process that has begun anew many times has the descriptors of one that has once."""
    pipe = (
        sp.Pipeline(range(10**6))
        .map(slowly, workers=1)
        .map(with_descriptors, workers=1)
        .through(passed, workers=1)
        .map(and_descriptors, workers=1)
    )
    seen: list[list[int]] = []
    with pipe.loader(transport=transport, prefetch=1, restarts=None) as loader:
        others = set(keeper_of(loader).pids[1:])
        for _ in range(5):
            next(loader)
            after_a_death(loader, keeper_of(loader).pids[0])
            assert set(keeper_of(loader).pids[1:]) == others
            (_, _, first), _, second = [next(loader) for _ in range(3)][-1]
            seen.append([first, second])
    assert max(seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]) <= 1, seen


def passed(items: Iterator[Any]) -> Iterator[Any]:
    yield from items


def and_descriptors(item: Any) -> tuple[Any, int, int]:
    return item, os.getpid(), len(os.listdir("/proc/self/fd"))


_kept: list[threading.Thread] = []
_never = threading.Event()


def with_a_thread(x: int) -> int:
    """What a stage does that has a pool of threads of its own."""
    if not _kept:
        _kept.append(threading.Thread(target=_never.wait, daemon=True))
        _kept[0].start()
    return x


@pytest.mark.usefixtures("patient")
def test_who_has_threads_of_its_own_does_not_stay() -> None:
    pipe = sp.Pipeline(range(10**6)).map(with_a_thread, workers=1).map(slowly, workers=1)
    with pipe.loader(prefetch=1) as loader:
        got = [next(loader)]
        before = keeper_of(loader).pids
        got += after_a_death(loader, before[1])
        assert not set(before) & set(keeper_of(loader).pids)
    assert got == list(range(len(got)))


@pytest.mark.usefixtures("patient")
def test_for_want_of_memory_nobody_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = sp.Pipeline(range(10**6)).map(slowly, workers=2)
    with pipe.loader(prefetch=1) as loader:
        got = [next(loader)]
        told = "the machine counts 1 more"
        monkeypatch.setattr(keeper_of(loader)._memory, "kills", lambda: told)
        before = keeper_of(loader).pids
        got += after_a_death(loader, before[0])
        assert not set(before) & set(keeper_of(loader).pids)
    assert got == list(range(len(got)))


@pytest.mark.usefixtures("patient")
def test_what_was_counted_is_counted_once() -> None:
    """The CPU time of a process counts from where its last work ended."""
    pipe = sp.Pipeline(range(10**6)).map(busily, workers=1).map(slowly, workers=1)
    with pipe.loader(prefetch=1, restarts=None) as loader:
        for _ in range(8):
            next(loader)
            after_a_death(loader, keeper_of(loader).pids[1])
        until(loader, lambda: loader.stats()[0].items_in > 0)
        told = loader.stats()[0].cpu_s
        spent = psutil.Process(keeper_of(loader).pids[0]).cpu_times()
    assert told <= spent.user + spent.system + 0.1


# --- the stream is the same -------------------------------------------------------------------


@pytest.mark.deadline(240)
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("grace_s", [LONG_S, 0.002])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph(name: str, grace_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some workers stay, others do not, some are spares, and anybody may die, also two at once."""
    monkeypatch.setattr(keeper, "REPLACED_GRACE_S", grace_s)
    rng = random.Random(name)
    pipe = GRAPHS[name]()
    truth = read(pipe.loader(executor="inline", epochs=2))
    total = sum(map(len, truth))
    at = {total * part // 6 + 1: 1 + part % 2 for part in range(6)}
    number, got = 0, list[list[Any]]()
    with pipe.loader(epochs=2, prefetch=2, restarts=None) as loader:
        for items in loader.by_epoch():
            got.append([])
            for item in items:
                got[-1].append(frozen(item))
                del item
                number += 1
                everybody = [*keeper_of(loader).pids, *spares_of(loader)]
                for pid in rng.sample(everybody, min(at.get(number, 0), len(everybody))):
                    kill(pid)
    assert got == truth


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("when", ["before", "after"])
def test_one_that_dies_when_it_is_given_its_work(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "REPLACED_GRACE_S", LONG_S)
    count = 100_000  # far more than what is made ahead: the one that is killed had work left
    give, left = Hand.give, [3]

    def struck(self: Hand, spec: Any) -> bool:
        dies = left[0] > 0
        left[0] -= 1
        if dies and when == "before":
            kill(self.process.pid)
        given = give(self, spec)
        if dies:
            kill(self.process.pid)
        return given

    monkeypatch.setattr(Hand, "give", struck)
    pipe = sp.Pipeline(range(count)).map(square, workers=2)
    with pipe.loader(prefetch=1, restarts=None) as loader:
        got = [next(loader)]
        kill(keeper_of(loader).pids[0])
        got += loader
    assert left[0] < 3
    assert got == [x * x for x in range(count)]


@pytest.mark.leaks("whoever the fork server has started is a child of nobody here when it is gone")
@pytest.mark.usefixtures("soon")
def test_the_fork_server_dies() -> None:
    """Then nobody can tell whether its children live: all are replaced, and leave."""
    pipe = sp.Pipeline(range(5000)).map(with_pid, workers=2)
    server: Any = multiprocessing.forkserver._forkserver
    with pipe.loader(prefetch=1, restarts=None) as loader:
        got = [next(loader) for _ in range(50)]
        before = [*keeper_of(loader).pids, *spares_of(loader)]
        kill(server._forkserver_pid)
        got += loader
        after = keeper_of(loader).pids
    assert [x for x, _ in got] == list(range(5000))
    assert not set(before) & set(after)
    assert all(map(gone, before))
    assert all(map(gone, after))


# --- spares -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("soon", "patient")
def test_a_spare_takes_the_place() -> None:
    pipe = sp.Pipeline(range(10**6)).map(slowly, workers=2)
    with pipe.loader(prefetch=1) as loader:
        got = until(loader, lambda: bool(spares_of(loader)))
        (spare,) = spares_of(loader)
        assert spare not in keeper_of(loader).pids
        kill(keeper_of(loader).pids[1])
        got += until(loader, lambda: spare in keeper_of(loader).pids)
        got += until(loader, lambda: bool(spares_of(loader)))
        assert spare not in spares_of(loader)
        assert deaths_of(loader) == 1
        assert got == list(range(len(got)))
        others = spares_of(loader)
    assert all(map(gone, others))


@pytest.mark.usefixtures("soon")
def test_a_spare_that_dies_is_another_one_and_no_death() -> None:
    pipe = sp.Pipeline(range(10**6)).map(slowly, workers=1)
    with pipe.loader(prefetch=1, restarts=1) as loader:
        got = []
        for _ in range(4):
            got += until(loader, lambda: bool(spares_of(loader)))
            (spare,) = spares_of(loader)
            kill(spare)
            got += until(loader, partial(is_no_spare, loader, spare))
        assert deaths_of(loader) == 0
        assert got == list(range(len(got)))


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("options", [{"restarts": 0}, {"start_method": "fork"}])
def test_none_where_it_is_of_no_use(options: dict[str, Any]) -> None:
    pipe = sp.Pipeline(range(300)).map(slowly, workers=1)
    with pipe.loader(prefetch=1, **options) as loader:
        for _ in loader:
            assert not spares_of(loader)


def test_none_in_a_short_run() -> None:
    pipe = sp.Pipeline(range(3)).map(slowly, workers=1)
    with pipe.loader(prefetch=1) as loader:
        assert list(loader) == [0, 1, 2]
        due = reserve_of(loader)._due
        assert not spares_of(loader) or (due is not None and time.monotonic() > due)


@pytest.mark.usefixtures("soon")
def test_none_is_started_beside_workers_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    arrived, start = Reserve.arrived, Reserve._start
    monkeypatch.setattr(Reserve, "arrived", lambda self: (seen.append("arrived"), arrived(self))[1])
    monkeypatch.setattr(Reserve, "_start", lambda self: (seen.append("start"), start(self))[1])
    with sp.Pipeline(range(10**6)).map(slowly, workers=1).loader(prefetch=1) as loader:
        until(loader, lambda: "start" in seen)
    assert seen[0] == "arrived"


@pytest.mark.usefixtures("soon")
def test_one_that_cannot_be_started_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = sp.Pipeline(range(300)).map(slowly, workers=1)
    with pipe.loader(prefetch=1) as loader:
        got = [next(loader)]

        class Context:
            def Process(self, **_options: Any) -> Any:  # noqa: N802
                return self

            def start(self) -> None:
                raise OSError("no more processes")

        monkeypatch.setattr(reserve, "starting_context", lambda _: Context())
        for spare in reserve_of(loader)._spares:
            kill(spare.process.pid)
        got += loader
        assert not reserve_of(loader)._wanted or not spares_of(loader)
    assert got == list(range(300))


@pytest.mark.usefixtures("soon")
def test_one_that_leaves_by_itself_was_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "stand_by", leaves)
    pipe = sp.Pipeline(range(10**6)).map(slowly, workers=1)
    with pipe.loader(prefetch=1) as loader:
        # It may be gone again before anybody has seen it here.
        got = until(loader, lambda: not reserve_of(loader)._wanted)
        got += until(loader, lambda: not spares_of(loader))
        got += [next(loader) for _ in range(100)]
        assert not spares_of(loader)
        assert got == list(range(len(got)))


def leaves(*_arguments: Any) -> None:
    raise SystemExit(3)


PROGRAM = """
import splitpipe as sp
from splitpipe.runtime import reserve
from tests.runtime.test_reserve import slowly, spares_of

if __name__ == "__main__":
    reserve.SPARE_AFTER_S = 0.0
    with sp.Pipeline(range(10**9)).map(slowly, workers=1).loader(prefetch=1) as loader:
        for _ in loader:
            if spares_of(loader):
                print(*spares_of(loader), flush=True)
                break
        for _ in loader:
            pass
"""


def test_a_spare_does_not_outlive_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdout is not None
        spares = [int(word) for word in program.stdout.readline().split()]
        assert spares
        program.kill()
    assert all(map(gone, spares))


# --- the line ---------------------------------------------------------------------------------


class TestLine:
    @pytest.fixture
    def line(self) -> Iterator[Line]:
        line = Line()
        yield line
        line.close()

    def test_who_was_not_called_leaves(self, line: Line) -> None:
        worker = Standby(line.travels())
        assert not worker.called()
        line.call()
        assert worker.called()
        assert not worker.called()

    def test_who_is_ready_is_given_work(self, line: Line) -> None:
        worker = Standby(line.travels())
        assert not line.ready()
        line.call()
        assert worker.called()
        worker.ready()
        assert line.ready()
        assert not line.ready()
        line.give({"work": 1})
        line.call()  # before it was begun
        assert worker.next() == {"work": 1}
        assert worker.called()

    def test_who_is_given_nothing_leaves(self, line: Line) -> None:
        worker = Standby(line.travels())
        line._ours.shutdown(socket.SHUT_RDWR)
        worker.ready()
        assert worker.next() is None

    def test_nobody_waits_for_one_that_takes_nothing(
        self, line: Line, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(standby, "GIVE_S", 0.05)
        with pytest.raises(OSError, match="timed out"):
            line.give(bytes(10**7))

    def test_a_process_with_new_threads_is_not_clean(self, line: Line) -> None:
        worker = Standby(line.travels())
        worker.begin()
        assert worker.clean()
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        assert not worker.clean()
        stop.set()
        thread.join()
        assert worker.clean()


def test_any_number_of_descriptors_travels() -> None:
    here, there = socket.socketpair()
    files = [Descriptor(os.dup(0)) for _ in range(450)]
    sender = threading.Thread(target=send_parcel, args=(here, files))
    sender.start()
    arrived = receive_parcel(there)
    sender.join()
    assert len({one.fd for one in (*files, *arrived)}) == 900
    assert all(not os.get_inheritable(one.fd) for one in arrived)
    for one in (*files, *arrived, here, there):
        one.close()


def test_a_parcel_that_is_cut_off_leaves_nothing() -> None:
    here, there = socket.socketpair()
    file = Descriptor(os.dup(0))
    send_parcel(here, [file, bytes(1000)])
    whole = there.recv(12)
    assert len(whole) == 12
    other, end = socket.socketpair()
    other.sendall(whole)
    _, fds, _, _ = socket.recv_fds(there, 1, 9)
    socket.send_fds(other, [b"."], fds)
    other.sendall(there.recv(100))
    other.close()
    with pytest.raises(EOFError):
        receive_parcel(end)
    for fd in fds:
        os.close(fd)
    for one in (here, there, end, file):
        one.close()
