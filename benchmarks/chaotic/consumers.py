"""Whole programs killed and interrupted at random, and what is left of them a second later.

Responsible for: starting them one after the other, ending each in a way that is drawn, and looking
for what it leaves, by what it owned (`Estate`) and by what became an orphan of ours.

Rules:
- what is left behind is known for theirs by pid and inode; nothing is ever concluded from a name;
- a foreign program whose names look like ours runs beside all of them, and has to have everything
  that it had when the last of them is gone.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.chaotic.cells import hear_ctrl_c
from benchmarks.chaotic.report import Report, spread
from splitpipe.testing.faults import Estate, adopt_orphans

__all__ = ["consumer_chaos"]

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 1.0
WAYS = ("SIGKILL", "SIGKILL of the group", "Ctrl-C", "Ctrl-C twice", "SIGTERM")
HANG_S = 30.0


def consumer_chaos(*, kills: int, minutes: float | None, seed: int) -> Report:
    """End programs, and look for what they leave.

    Args:
        kills: how many programs.
        minutes: how long, at most; None: for all of them.
        seed: seeds what is drawn.
    """
    adopt_orphans()
    rng = random.Random(seed)
    report = Report()
    ways: Counter[str] = Counter()
    gone_s: list[float] = []
    end = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, _stranger(Path(name)) as stranger:
        while ways.total() < kills and time.monotonic() < end:
            way = rng.choice(WAYS)
            ways[way] += 1
            left, seconds = _one(rng, way, Path(name), stranger.pid)
            gone_s.append(seconds)
            for text in left:
                report.faults.append(f"program {ways.total()}, {way}: {text}")
        stranger_says = _ask(stranger)
        report.require(stranger_says == "intact", f"of a foreign program: {stranger_says}")
    report.lines += [
        f"programs: {ways.total()} ({', '.join(f'{n} {way}' for way, n in sorted(ways.items()))})",
        f"until all of a program was gone: {spread(gone_s)}",
        f"left behind: {len(report.faults)}; foreign names touched: "
        f"{0 if stranger_says == 'intact' else stranger_says}",
    ]
    return report


def _one(rng: random.Random, way: str, folder: Path, stranger: int) -> tuple[list[str], float]:
    """Run and end one program; return what is left of it, and how long that took to be gone."""
    method = rng.choice(("forkserver", "forkserver", "fork", "spawn"))
    transport = rng.choice(("pipe", "zmq", "zmq+tcp"))
    command = [sys.executable, "-m", "benchmarks.chaotic.program"]
    command += [method, transport, str(rng.choice((1, 2, 3)))]
    own = Path(tempfile.mkdtemp(dir=folder))
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(own)},
        preexec_fn=hear_ctrl_c,
    )
    estate = None
    try:
        assert process.stdout is not None
        if rng.random() < 0.8:  # else it is ended while it starts
            process.stdout.readline()
            estate = Estate.of(process.pid)
        time.sleep(rng.random() * (0.05 if estate else 0.3))
        _end(process, way, rng)
        since = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(HANG_S)
        if process.poll() is None:
            return [f"{' '.join(command[2:])} did not end"], HANG_S
        return _left(estate, own, stranger, since)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def _end(process: subprocess.Popen[str], way: str, rng: random.Random) -> None:
    with contextlib.suppress(ProcessLookupError):
        if way == "SIGTERM":
            process.terminate()
        elif way == "SIGKILL":
            process.kill()
        elif way == "SIGKILL of the group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGINT)
            if way == "Ctrl-C twice":
                time.sleep(rng.random() * 0.02)
                os.killpg(process.pid, signal.SIGINT)


def _left(estate: Estate | None, own: Path, stranger: int, since: float) -> tuple[list[str], float]:
    """Wait until all is gone; what is not, a second after the program was."""
    end = time.monotonic() + WITHIN_S
    while True:
        left = list(estate.remains()) if estate is not None else []
        left += [f"orphan {one.pid}: {_line(one)}" for one in _orphans(stranger)]
        # The fork server's own folder (pymp-) is Python's, and stays where it is not asked first.
        left += [f"file {path}" for path in own.rglob("*") if "splitpipe" in path.name]
        now = time.monotonic()
        if not left or now > end:
            return left, now - since
        time.sleep(0.002)


def _orphans(stranger: int) -> Iterator[psutil.Process]:
    """What lives below this process, apart from the foreign program; the dead are buried."""
    for child in psutil.Process().children():
        if child.pid == stranger:
            continue
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
                continue
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
        yield child


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[-80:]
    except psutil.NoSuchProcess:
        return "gone meanwhile"


@contextlib.contextmanager
def _stranger(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The foreign program of the tests; its names lie where those of the programs do."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.chaotic.stranger"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def _ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("well?\n")
    process.stdin.flush()
    return process.stdout.readline().strip() or "it is gone"
