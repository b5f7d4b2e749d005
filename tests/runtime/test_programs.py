"""Whole programs, and how they end: nothing of them is left, whoever is killed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.runtime.running import running
from tests.sampling import seldom

pytestmark = pytest.mark.deadline(60)

ENDLESS = """
    import itertools, sys
    import numpy as np
    import splitpipe as sp
    from splitpipe.runtime.metrics import started

    def numbers():
        return itertools.count()

    def grow(x):
        return np.full(100_000, x)

    def main():
        pipe = sp.Pipeline(numbers).map(grow, workers=2).map(len, workers=1)
        loader = pipe.loader(start_method={method!r}, transport={transport!r})
        rows = loader._run.observer.rows
        while not all(map(started, rows)):
            next(loader)
        print("running", flush=True)
        {then}

    if __name__ == "__main__":
        main()
"""
METHODS = ["forkserver", "spawn", "fork"]
WAYS = [
    ("forkserver", "pipe"),
    ("spawn", "pipe"),
    ("fork", "pipe"),
    ("forkserver", "zmq"),
    ("fork", "zmq"),
]


def endless(method: str, transport: str, then: str = "for _ in loader: pass") -> str:
    return ENDLESS.format(method=method, transport=transport, then=then)


def ways(*often: int) -> pytest.MarkDecorator:
    """All `WAYS`, of which those with these numbers are tried every time."""
    return pytest.mark.parametrize(
        ("method", "transport"), seldom(WAYS, keep=[WAYS[number] for number in often])
    )


class TestKilled:
    @ways(0, 3)
    def test_consumer_by_sigkill(self, tmp_path: Path, method: str, transport: str) -> None:
        with running(tmp_path, endless(method, transport)) as program:
            assert program.first_line() == "running"
            family = program.family()
            assert len(family) >= 4
            program.kill(signal.SIGKILL)
            program.process.wait()
            program.assert_nothing_left(family)

    @ways(1, 4)
    def test_whole_group_by_sigkill(self, tmp_path: Path, method: str, transport: str) -> None:
        with running(tmp_path, endless(method, transport)) as program:
            assert program.first_line() == "running"
            family = program.family()
            program.kill(signal.SIGKILL, group=True)
            program.process.wait()
            program.assert_nothing_left(family)

    @ways(2, 0)
    def test_consumer_by_sigterm(self, tmp_path: Path, method: str, transport: str) -> None:
        with running(tmp_path, endless(method, transport)) as program:
            assert program.first_line() == "running"
            family = program.family()
            program.kill(signal.SIGTERM)
            program.process.wait()
            program.assert_nothing_left(family)

    @ways(0, 4)
    def test_ctrl_c(self, tmp_path: Path, method: str, transport: str) -> None:
        with running(tmp_path, endless(method, transport)) as program:
            assert program.first_line() == "running"
            family = program.family()
            program.kill(signal.SIGINT, group=True)
            status, _, errors = program.finish()
            assert status == -signal.SIGINT, errors
            assert errors.count("Traceback") == 1, errors
            assert "KeyboardInterrupt" in errors
            program.assert_nothing_left(family)

    @ways(0, 2)
    def test_while_a_stage_is_stuck(self, tmp_path: Path, method: str, transport: str) -> None:
        body = f"""
            import threading, sys
            import splitpipe as sp

            def stuck(x):
                if x == 3:
                    threading.Event().wait()
                return x

            def main():
                pipe = sp.Pipeline(range(9)).map(stuck, workers=2)
                loader = pipe.loader(start_method={method!r}, transport={transport!r})
                for _ in range(3):
                    next(loader)
                print("running", flush=True)
                next(loader)

            if __name__ == "__main__":
                main()
        """
        with running(tmp_path, body) as program:
            assert program.first_line() == "running"
            family = program.family()
            program.kill(signal.SIGKILL)
            program.process.wait()
            program.assert_nothing_left(family)


class TestLeaving:
    @pytest.mark.parametrize("method", seldom(METHODS, keep=["forkserver", "fork"]))
    def test_without_close(self, tmp_path: Path, method: str) -> None:
        with running(tmp_path, endless(method, "pipe", "return loader")) as program:
            assert program.first_line() == "running"
            status, _, errors = program.finish()
            assert (status, errors) == (0, "")

    @pytest.mark.parametrize("method", seldom(METHODS, keep=["forkserver", "spawn"]))
    def test_without_close_while_a_global_holds_it(self, tmp_path: Path, method: str) -> None:
        then = "globals()['kept'] = loader, next(loader)"
        with running(tmp_path, endless(method, "zmq", then)) as program:
            assert program.first_line() == "running"
            family = program.family()
            status, _, errors = program.finish()
            assert (status, errors) == (0, "")
            program.assert_nothing_left(family)

    @pytest.mark.parametrize("method", seldom(METHODS, keep=["forkserver"]))
    def test_by_an_exception(self, tmp_path: Path, method: str) -> None:
        with running(tmp_path, endless(method, "pipe", "raise ValueError('mine')")) as program:
            assert program.first_line() == "running"
            family = program.family()
            status, _, errors = program.finish()
            assert status == 1
            assert errors.strip().endswith("ValueError: mine")
            program.assert_nothing_left(family)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_script_without_its_guard_is_told_so_and_does_not_multiply(
    tmp_path: Path, method: str
) -> None:
    body = f"""
        import splitpipe as sp
        print("imported", flush=True)
        loader = sp.Pipeline(range(9)).map(str, workers=2).loader(start_method={method!r})
        print(list(loader))
    """
    with running(tmp_path, body) as program:
        status, out, errors = program.finish()
        assert status == 1
        assert "if __name__ == '__main__':" in errors
        assert out.count("imported") <= 3


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_what_the_main_script_defines_travels_both_ways(tmp_path: Path, method: str) -> None:
    body = f"""
        from dataclasses import dataclass
        import splitpipe as sp

        @dataclass
        class Sample:
            x: int
            def doubled(self): return Sample(2 * self.x)

        class Broken(Exception):
            pass

        def fail(x):
            raise Broken(x)

        def main():
            factor = 3
            pipe = sp.Pipeline([Sample(1), Sample(2)])
            pipe = pipe.map(Sample.doubled, workers=1)
            pipe = pipe.map(lambda s: Sample(s.x * factor), workers=2)
            got = list(pipe.loader(start_method={method!r}))
            assert got == [Sample(6), Sample(12)], got
            assert all(type(s) is Sample for s in got)
            try:
                list(pipe.map(fail, workers=1).loader(start_method={method!r}))
            except Broken as error:
                assert error.args == (Sample(6),)
                print("right")

        if __name__ == "__main__":
            main()
    """
    with running(tmp_path, body) as program:
        status, out, errors = program.finish()
        assert (status, out.strip(), errors) == (0, "right", "")


@pytest.mark.parametrize("limit", seldom([6, 9, 12, 14, 17, 19, 22, 28, 40], keep=[6, 14, 19, 28]))
def test_few_descriptors(tmp_path: Path, limit: int) -> None:
    """Either it runs or it says what is missing; it holds nothing afterwards in any case."""
    body = f"""
        import os, resource
        import splitpipe as sp
        import splitpipe.loader, splitpipe.runtime.supervisor

        def held():
            names = [f"/proc/self/fd/{{i}}" for i in range(64)]
            found = [os.readlink(name) for name in names if os.path.lexists(name)]
            # multiprocessing leaves a pipe behind when it cannot make its second one
            return [name for name in found if not name.startswith("pipe:")]

        def main():
            resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
            before = held()
            try:
                pipe = sp.Pipeline(range(9)).map(str, workers=2)
                with pipe.loader(start_method="fork") as loader:
                    print(list(loader) == [str(i) for i in range(9)])
            except OSError as error:
                print(error.errno == 24)
            assert held() == before, (before, held())

        if __name__ == "__main__":
            main()
    """
    with running(tmp_path, body) as program:
        status, out, errors = program.finish()
        assert (status, out.strip(), errors) == (0, "True", "")


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    """RLIMIT_FSIZE holds for shared memory too: payloads lie inside messages, or it is said."""
    body = """
        import resource
        import numpy as np
        import splitpipe as sp

        def small(x): return np.full(50_000, x, np.uint8)
        def large(x): return np.full(500_000, x, np.uint8)

        def main():
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
            pipe = sp.Pipeline(range(5))
            with pipe.map(small, workers=2).loader(start_method="fork") as loader:
                assert [int(x[-1]) for x in loader] == [0, 1, 2, 3, 4]
            try:
                with pipe.map(large, workers=2).loader(start_method="fork") as loader:
                    print(len(list(loader)))
            except sp.ChannelError as error:
                print("File too large" in str(error))

        if __name__ == "__main__":
            main()
    """
    with running(tmp_path, body) as program:
        status, out, errors = program.finish()
        assert (status, out.strip(), errors) == (0, "True", "")
