"""`Fault` and `FaultLog`: what they promise to those who test their own pipelines with them."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import psutil
import pytest

import splitpipe as sp
from splitpipe.testing.faults import (
    HOWS,
    Estate,
    Fault,
    FaultLog,
    InjectedFault,
    forked,
    run_in_child,
)
from tests.faults.places import same
from tests.runtime.comparing import read


class TestWhen:
    def test_at_the_item_of_that_number(self) -> None:
        struck = Fault(at=2).before(same)
        assert [struck(x) for x in "ab"] == ["a", "b"]
        with pytest.raises(InjectedFault):
            struck("c")
        assert struck("d") == "d"

    def test_at_items_that_are_chosen(self) -> None:
        struck = Fault(when=lambda x: x % 2 == 1, times=None).before(same)
        for x in (1, 3, 5):
            with pytest.raises(InjectedFault):
                struck(x)
        assert struck(2) == 2

    def test_once_unless_it_is_said(self) -> None:
        fault = Fault(when=lambda x: x == 1)
        with pytest.raises(InjectedFault):
            fault.strike(1)
        fault.strike(1)

    def test_a_copy_is_the_same_fault_and_another_is_not(self) -> None:
        fault = Fault()
        copied = pickle.loads(pickle.dumps(fault))
        with pytest.raises(InjectedFault):
            fault.strike()
        copied.strike()
        with pytest.raises(InjectedFault):
            Fault().strike()

    def test_in_one_worker_alone(self) -> None:
        pipe = sp.Pipeline(range(500)).map(
            Fault(ValueError, worker=1, times=None).before(slowly), workers=2
        )
        for executor in ("process", "thread"):
            _, error = read(pipe.loader(start_method="fork", executor=executor))
            assert type(error) is ValueError
            assert "worker 1 of" in "\n".join(error.__notes__)

    def test_every_process_counts_for_itself(self) -> None:
        fault = Fault(lambda: os._exit(0), at=1)
        with pytest.raises(AssertionError):
            run_in_child(lambda: (fault.strike(), os._exit(1)))
        assert run_in_child(lambda: (fault.strike(), fault.strike(), os._exit(1))) == 0
        fault.strike()  # and what its children did does not count here


def slowly(x: int) -> int:
    threading.Event().wait(0.001)  # both workers get something to do
    return x


class TestOnce:
    """With a log: over processes, threads and restarts."""

    def test_over_several_processes(self, tmp_path: Path) -> None:
        log = FaultLog(tmp_path / "strikes")
        fault = Fault("kill", log=log)
        assert [run_in_child(fault.strike) for _ in range(3)] == [signal.SIGKILL, 0, 0]
        (incident,) = log.incidents()
        assert incident.pid != os.getpid()
        assert incident.worker is None

    def test_as_often_as_it_is_said_whoever_is_first(self, tmp_path: Path) -> None:
        log = FaultLog(tmp_path / "strikes")
        struck = []
        start = threading.Barrier(8)

        def claim() -> None:
            start.wait()
            struck.append(log.claim(3))

        threads = [threading.Thread(target=claim) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert struck.count(True) == 3
        assert len(log.incidents()) == 3

    def test_a_line_that_is_being_written_is_not_there_yet(self, tmp_path: Path) -> None:
        log = FaultLog(tmp_path / "strikes")
        assert log.claim(None, item="whole")
        with open(log.path, "a") as file:
            file.write('{"at_s": 1.0, ')
        assert [one.item for one in log.incidents()] == ["'whole'"]

    def test_waiting_for_what_does_not_come_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(TimeoutError, match="0 strikes of 1"):
            FaultLog(tmp_path / "strikes").wait(1, within_s=0.01)


ENDS: dict[str, Any] = {
    "kill": signal.SIGKILL,
    "terminate": signal.SIGTERM,
    "abort": signal.SIGABRT,
    "segfault": signal.SIGSEGV,
}


class TestHow:
    @pytest.mark.parametrize("how", ENDS)
    def test_a_process_ends_as_it_is_said(self, how: str) -> None:
        assert run_in_child(Fault(how).strike) == ENDS[how]

    @pytest.mark.parametrize("how", ["sys.exit", "os._exit"])
    def test_an_exit(self, how: str) -> None:
        code = f"from splitpipe.testing.faults import Fault; Fault({how!r}).strike(); print('on')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (3, b"")

    @pytest.mark.parametrize("how", ["loop", "hold", "wait", "stop"])
    def test_what_never_ends(self, how: str) -> None:
        def act(tell: Callable[[], None]) -> None:
            tell()
            Fault(how).strike()
            tell()

        with forked(act) as child:
            child.listen(messages=1)
            assert child.told == 1
            assert child.kill() == signal.SIGKILL
            assert child.told == 1

    def test_an_exception_of_ones_own(self) -> None:
        with pytest.raises(KeyError):
            Fault(KeyError).strike()
        with pytest.raises(KeyError, match="mine"):
            Fault(KeyError("mine")).strike()

    def test_a_function_of_ones_own(self) -> None:
        called: list[str] = []
        Fault(lambda: called.append("once")).strike()
        assert called == ["once"]

    def test_one_that_does_not_exist_is_told_with_those_that_do(self) -> None:
        with pytest.raises(ValueError, match=r"no such fault: 'explode'.*raise"):
            Fault("explode")

    def test_each_is_described(self) -> None:
        text = Path(sys.modules["splitpipe.testing.faults.stages"].__file__ or "").read_text()
        described = text[text.index('"""What may happen, by name.') :].split('"""')[1]
        assert [how for how in HOWS if f"``{how}``" not in described] == []


class TestWhere:
    def test_a_struck_function_looks_like_the_function(self) -> None:
        def decode(x: int, rng: Any) -> float:
            return x + float(rng.random())

        struck = Fault(when=lambda x: False).before(decode)
        plain = sp.Pipeline(range(5), seed=1).map(decode)
        assert repr(sp.Pipeline(range(5), seed=1).map(struck)) == repr(plain)
        assert list(sp.Pipeline(range(5), seed=1).map(struck)) == list(plain)

    def test_after_the_work_of_a_function(self) -> None:
        done: list[int] = []
        struck = Fault(when=lambda made: made == 3).after(lambda x: done.append(x) or len(done))
        assert [struck("a"), struck("b")] == [1, 2]
        with pytest.raises(InjectedFault):
            struck("c")
        assert len(done) == 3

    def test_in_a_stream(self) -> None:
        for stage, before in ((Fault(at=2).passing, 2), (Fault(at=2).following, 3)):
            got, error = read(sp.Pipeline(range(9)).through(stage).loader(executor="inline"))
            assert got == list(range(before))
            assert type(error) is InjectedFault

    def test_where_a_stream_is_closed(self) -> None:
        items = Fault().closing(iter(range(9)))
        assert next(items) == 0
        with pytest.raises(InjectedFault):
            items.close()  # type: ignore[attr-defined]

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_on_the_way(self, protocol: int) -> None:
        out, back = Fault(at=1), Fault(at=1)
        assert pickle.loads(pickle.dumps(out.pickling([1]), protocol)) == [1]
        with pytest.raises(InjectedFault):
            pickle.dumps(out.pickling([1]), protocol)
        text = pickle.dumps(back.unpickling([2]), protocol)
        assert pickle.loads(text) == [2]
        with pytest.raises(InjectedFault):
            pickle.loads(text)


class TestEstate:
    CODE = (
        "import socket, sys, subprocess\n"
        "from multiprocessing import resource_tracker, shared_memory\n"
        "child = subprocess.Popen(['sleep', '3600'])\n"
        "pair = socket.socketpair()\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "segment = shared_memory.SharedMemory(create=True, size=4096)\n"
        "resource_tracker.unregister(segment._name, 'shared_memory')\n"
        "open(sys.argv[1] + '/file', 'w').close()\n"
        "print(segment.name, flush=True)\n"
        "sys.stdin.read()\n"
    )

    def test_sees_all_and_what_stays(self, tmp_path: Path) -> None:
        program = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        name = program.stdout.readline().strip()
        estate = Estate.of(program.pid, folders=[tmp_path])
        try:
            kinds = [text.split()[0] for text in estate.remains()]
            tracker = [one for one in estate.processes if "import main" in " ".join(one.cmdline())]
            assert kinds.count("process") == 2 + len(tracker) == 3
            assert kinds.count("socket") == 3
            assert kinds.count("file") == 2
            program.kill()
            program.wait()
            psutil.wait_procs(tracker, timeout=10.0)
            # Its tracker was told to leave the segment alone, and nobody ended its child.
            left = [text.split()[0] for text in estate.remains()]
            assert left == ["process", "file", "file"]
        finally:
            estate.kill()
            program.communicate()  # whose pipes its child had, too
            shared_memory.SharedMemory(name).unlink()
        (tmp_path / "file").unlink()
        assert estate.wait(10.0) == ()

    def test_of_one_that_is_gone_is_empty(self) -> None:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        assert Estate.of(process.pid).remains() == ()

    def test_what_others_have_is_not_seen(self) -> None:
        with socket.socket() as mine:
            process = subprocess.Popen(["sleep", "3600"])
            estate = Estate.of(process.pid)
            process.kill()
            process.wait()
            assert mine.fileno() >= 0
            assert estate.remains() == ()
