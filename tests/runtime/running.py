"""Programs that run a pipeline in a process of their own, to be killed from outside.

Responsible for: `Program`, which starts a script, waits for its first line, and tells what is left
of its whole family afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.chaotic.stranger import MARK

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0
"""What a busy machine may need for what takes milliseconds on an idle one."""

END_S = 120.0
"""And for a whole program that starts a dozen interpreters."""


class Program:
    """A running script, in a process group of its own.

    Attributes:
        python_path: where it finds modules.
        shared_folder: its TMPDIR, where others have the same; None for one of its own.
    """

    python_path: tuple[Path, ...] = (ROOT,)
    shared_folder: Path | None = None

    def __init__(self, script: Path) -> None:
        self.folder = self.shared_folder or script.parent / "tmp"
        self.folder.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(self.folder)}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, self.python_path))
        environment["PYTHONFAULTHANDLER"] = "1"
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
            # A shell's background jobs ignore Ctrl-C, and so would everything below them.
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        self.shared_memory = _shared_memory()

    def first_line(self) -> str:
        """Wait until the script says something."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def family(self) -> list[psutil.Process]:
        """Every process that the script has started, the fork server and its children included."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self, number: signal.Signals, *, group: bool = False) -> None:
        if group:
            os.killpg(self.process.pid, number)
        else:
            os.kill(self.process.pid, number)

    def finish(self) -> tuple[int, str, str]:
        """Wait for its end; return the status and what it wrote.

        One that does not end says where each of its threads is.
        """
        try:
            out, err = self.process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            family = [(p.pid, p.status(), p.cmdline()[-2:]) for p in self.family()]
            self.kill(signal.SIGABRT)
            _, err = self.process.communicate()
            pytest.fail(f"it did not end; its family: {family}\n{err}")
        return self.process.returncode, out, err

    def assert_nothing_left(self, family: list[psutil.Process]) -> None:
        """Fail unless all of `family` is gone soon, and no file of it is left."""
        end = time.monotonic() + WITHIN_S
        while left := [p for p in family if _lives(p)]:
            assert time.monotonic() < end, f"still there: {left}"
            psutil.wait_procs(left, timeout=0.05)
        assert not [f.name for f in self.folder.iterdir() if "splitpipe" in f.name]
        new = _shared_memory() - self.shared_memory
        assert not [name for name in new if "splitpipe" in name and not name.endswith(MARK)]


@contextlib.contextmanager
def running(folder: Path, body: str) -> Iterator[Program]:
    """Run `body` as a main script in `folder`; whatever is left of it is killed at the end."""
    script = folder / "main.py"
    script.write_text(textwrap.dedent(body), encoding="utf-8")
    program = Program(script)
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.kill(signal.SIGKILL, group=True)
        program.process.communicate()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
