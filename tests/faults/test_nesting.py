"""The crash table, for what programs do around a pipeline: nesting, forking, threads, leaving."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

import splitpipe as sp
from splitpipe.interrupts import held_back
from splitpipe.testing.faults import Estate, Fault, FaultLog, worker_index
from tests.faults.places import forever, same
from tests.faults.reading import PATIENCE_S, reading
from tests.runtime.comparing import read
from tests.runtime.running import WITHIN_S, running

pytestmark = [
    pytest.mark.deadline(60),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def summed(fault: Fault, x: int) -> int:
    pipe = sp.Pipeline(range(x, x + 9)).map(fault.before(same), workers=2, name="inner")
    with pipe.loader(start_method="fork") as loader:
        return sum(loader)


def nested(fault: Fault) -> sp.Pipeline:
    return sp.Pipeline(range(20)).map(partial(summed, fault), workers=2, name="outer")


def is_seven(x: int) -> bool:
    return x == 7


class TestNested:
    """A stage that runs a pipeline of its own."""

    def test_gives_what_it_gives(self) -> None:
        pipe = nested(Fault(when=lambda _: False))
        with pipe.loader(start_method="fork") as loader:
            assert list(loader) == [sum(range(x, x + 9)) for x in range(20)]

    def test_an_error_of_the_inner_one_names_both_stages(self) -> None:
        got, error = read(
            nested(Fault(ValueError("deep"), when=is_seven)).loader(start_method="fork")
        )
        assert got == []
        assert type(error) is ValueError
        assert "stage 'inner'" in "\n".join(error.__notes__)
        assert "stage 'outer'" in "\n".join(error.__notes__)

    def test_the_death_of_an_inner_worker_is_told(self, tmp_path: Path) -> None:
        fault = Fault("kill", when=is_seven, times=None, log=FaultLog(tmp_path / "strikes"))
        got, error = read(nested(fault).loader(start_method="fork"))
        assert got == []
        # The inner run fails in its consumer, which is a worker of the outer one.
        assert isinstance(error, sp.PipelineError)
        assert "stage 'inner'" in str(error)

    def test_the_death_of_an_outer_worker_takes_the_inner_ones_with_it(
        self, tmp_path: Path
    ) -> None:
        log = FaultLog(tmp_path / "strikes")
        fault = Fault("wait", when=is_seven, times=None, log=log)
        with reading(nested(fault).loader(start_method="fork")):
            inner = psutil.Process(log.wait(1)[0].pid)
            outer = inner.parent()
            assert outer is not None
            estate = Estate.of(outer.pid)
            assert inner in estate.processes
            outer.kill()
            _, alive = psutil.wait_procs(estate.processes, timeout=WITHIN_S)
            assert alive == []


def logged(x: int) -> int:
    logging.getLogger("tests.faults").warning("item %d", x)
    return x


def test_starting_workers_while_threads_hold_locks() -> None:
    """Threads of the program log all the time, and so do the stages of workers started meanwhile.

    Forked ones could find the buffer of a file locked for ever: those of the fork server do not.
    """
    logger = logging.getLogger("tests.faults")
    handler = logging.FileHandler(os.devnull)
    logger.addHandler(handler)
    logger.propagate = False
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            logger.warning("busy")

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            pipe = sp.Pipeline(range(30)).map(logged, workers=2)
            with pipe.loader() as loader:
                assert list(loader) == list(range(30))
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        logger.removeHandler(handler)
        handler.close()


def test_a_fork_of_the_consumer_that_outlives_it_keeps_no_worker_alive(tmp_path: Path) -> None:
    """A data loader is often in a program that forks helpers: those hold copies of everything."""
    body = """
        import os, threading
        import splitpipe as sp
        from splitpipe.testing.faults import Fault, FaultLog
        from tests.faults.places import forever, same
        from tests.faults.program import LOG, third

        def main():
            fault = Fault("hold", when=third, log=FaultLog(LOG))
            loader = sp.Pipeline(forever).map(fault.before(same), workers=2).loader()
            for _ in range(3):
                next(loader)
            FaultLog(LOG).wait(1)
            child = os.fork()
            if child == 0:
                threading.Event().wait()
            print(child, flush=True)
            next(loader)

        if __name__ == "__main__":
            main()
    """
    with running(tmp_path, body) as program:
        child = int(program.first_line())
        estate = Estate.of(program.process.pid)
        others = [one for one in estate.processes if one.pid != child]
        program.kill(signal.SIGKILL)
        program.process.wait()
        try:
            gone, alive = psutil.wait_procs(others, timeout=WITHIN_S)
            # The fork server and the tracker of resources stay while the child has their pipes.
            assert [one.pid for one in alive if worker_of(one)] == []
            assert gone
        finally:
            estate.kill()


def worker_of(process: psutil.Process) -> bool:
    """Whether it is one of a fork server's children."""
    parent = process.parent()
    return parent is not None and "forkserver" in " ".join(parent.cmdline())


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_leaving_the_interpreter_while_a_thread_reads(tmp_path: Path, executor: str) -> None:
    body = f"""
        import threading
        import splitpipe as sp
        from tests.faults.places import forever, same

        def main():
            pipe = sp.Pipeline(forever).map(same, workers=2, executor={executor!r})
            loader = pipe.loader()
            read = threading.Event()

            def consume():
                for x in loader:
                    if x == 1000:
                        read.set()

            threading.Thread(target=consume, daemon=True).start()
            read.wait()
            print("running", flush=True)

        if __name__ == "__main__":
            main()
    """
    with running(tmp_path, body) as program:
        assert program.first_line() == "running"
        family = program.family()
        status, _, _ = program.finish()
        assert status == 0
        program.assert_nothing_left(family)


def test_a_worker_knows_its_number() -> None:
    def numbered(x: int) -> tuple[int, int | None]:
        return x, worker_index()

    for executor in ("process", "thread"):
        pipe = sp.Pipeline(range(50)).map(numbered, workers=2, executor=executor)
        with pipe.loader(start_method="fork") as loader:
            assert {number for _, number in loader} <= {0, 1}
    assert worker_index() is None


def first_of(items: Iterator[int]) -> int:
    return next(items)


def test_endless_sources_are_left_at_once() -> None:
    with sp.Pipeline(forever).map(same, workers=2).loader(start_method="fork") as loader:
        assert first_of(loader) == 0


class TestInterrupts:
    def test_what_is_held_back_happens_at_the_end(self) -> None:
        done = []

        def close() -> None:
            with held_back():
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                done.append(True)

        with pytest.raises(KeyboardInterrupt):
            close()
        assert done
        with pytest.raises(KeyboardInterrupt):  # and afterwards it is as it was
            signal.raise_signal(signal.SIGINT)

    def test_a_handler_of_the_program_is_called(self) -> None:
        called: list[int] = []
        earlier = signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
        try:
            with held_back():
                signal.raise_signal(signal.SIGINT)
                assert called == []
            assert called == [signal.SIGINT]
        finally:
            signal.signal(signal.SIGINT, earlier)

    def test_an_error_of_the_block_is_not_lost(self) -> None:
        def close() -> None:
            with held_back():
                signal.raise_signal(signal.SIGINT)
                raise ValueError("closing failed")

        with pytest.raises(KeyboardInterrupt) as raised:
            close()
        assert isinstance(raised.value.__context__, ValueError)

    def test_other_threads_change_no_handler(self) -> None:
        seen: list[object] = []

        def look() -> None:
            with held_back():
                seen.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join(PATIENCE_S)
        assert seen == [signal.getsignal(signal.SIGINT)]

    def test_ctrl_c_while_a_loader_is_closed_leaves_nothing(self, tmp_path: Path) -> None:
        """The generator says when it is closed, and has to be killed: that is when it comes."""
        log = FaultLog(tmp_path / "strikes")
        pipe = sp.Pipeline(forever).through(Fault("wait", log=log).closing, workers=1)
        loader = pipe.loader(start_method="fork")
        next(loader)

        def interrupt() -> None:
            log.wait(1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            loader.close()
        thread.join(PATIENCE_S)
        with pytest.raises(StopIteration):
            next(loader)  # no child is left either: see tests/conftest.py
