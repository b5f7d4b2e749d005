"""One cell of the table: a program in which something goes wrong, followed to its end.

Responsible for: `Outcome`, what was seen of it, and `run_cell`, which runs it, does to it what the
row wants, gives it an end if it has none of its own, and tidies up after it.

Rules:
- what a program owns is known by pid and inode, its orphans by becoming ours: `adopt_orphans` has
  to have been called;
- a program that says nothing for as long as the limit hangs; until its first item it has longer. It
  is told Ctrl-C then, and whether that ends it is noted.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.chaotic.rows import AT, COUNT, Row
from splitpipe.testing.faults import Estate, FaultLog

__all__ = ["Outcome", "hear_ctrl_c", "run_cell"]

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 1.0
CTRL_C_S = 5.0
START_S = 60.0
SETTLE_S = 0.05
"""From the note of a fault until what it does was done."""


@dataclass(slots=True)
class Outcome:
    """What one program did.

    Attributes:
        items: the numbers that came, in their order.
        error: type of the exception that the loop got.
        ended: the loop ended without one.
        hangs: it said nothing for the whole limit.
        ctrl_c: whether Ctrl-C ended it then; None where it was not needed.
        status: how the process ended.
        seconds: from the fault to what the loop was told; where the program was hit, to its end.
        left: what was there a second after its end.
    """

    items: list[int] = field(default_factory=list)
    error: str | None = None
    ended: bool = False
    hangs: bool = False
    ctrl_c: bool | None = None
    status: int | None = None
    seconds: float | None = None
    left: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether the loop got all items, in order, and its end."""
        return self.ended and self.items == list(range(COUNT))

    @property
    def in_order(self) -> bool:
        """Whether what came is the beginning of what should."""
        return self.items == list(range(len(self.items)))


def run_cell(system: str, row: Row, limit_s: float) -> Outcome:
    """Run one program, see what it does, and tidy up after it."""
    with tempfile.TemporaryDirectory(prefix="crashes-") as folder:
        cell = _Cell(system, row, Path(folder))
        try:
            cell.follow(limit_s)
            cell.look()
        finally:
            cell.tidy_up()
        return cell.outcome


class _Cell:
    def __init__(self, system: str, row: Row, folder: Path) -> None:
        self.outcome = Outcome()
        self._row = row
        self._log = FaultLog(folder / "strikes")
        self._program = subprocess.Popen(
            _command(system, row, folder),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder)},
            preexec_fn=hear_ctrl_c,
        )
        self._pidfd = os.pidfd_open(self._program.pid)
        self._estate = Estate((), frozenset(), frozenset())
        self._text = b""
        self._told_s: float | None = None
        self._acted_s: float | None = None
        self._ended_s = 0.0

    def follow(self, limit_s: float) -> None:
        """Read what it says until it has ended, one way or another."""
        assert self._program.stdout is not None
        out = self._program.stdout.fileno()
        heard = time.monotonic()
        while self._program.poll() is None:
            ready, _, _ = select.select([out, self._pidfd], [], [], SETTLE_S)
            if out in ready and self._hear(out):
                heard = time.monotonic()
            if self._acted_s is None and self._due():
                self._act()
                heard = time.monotonic()
            if time.monotonic() - heard > (limit_s if self.outcome.items else START_S):
                self._give_up()
                break
        self._ended_s = time.monotonic()
        self.outcome.status = self._program.wait()
        while select.select([out], [], [], 0)[0] and self._hear(out):
            pass

    def look(self) -> None:
        """Note how long it took, and what is left."""
        outcome = self.outcome
        struck = [one.at_s for one in self._log.incidents()]
        if self._acted_s is not None:
            outcome.seconds = self._ended_s - self._acted_s
        elif struck and self._told_s is not None:
            outcome.seconds = self._told_s - struck[0]
        end = self._ended_s + WITHIN_S
        while True:
            outcome.left = [text for text in self._estate.remains() if text[0] != "p"]
            outcome.left += [f"process {one.pid}" for one in _orphans(self._program.pid)]
            if not outcome.left or time.monotonic() > end:
                return
            time.sleep(0.005)

    def tidy_up(self) -> None:
        """End whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._program.pid, signal.SIGKILL)
        self._program.wait()
        while orphans := _orphans(self._program.pid):
            for one in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            time.sleep(0.005)
        os.close(self._pidfd)
        assert self._program.stdout is not None
        self._program.stdout.close()

    def _hear(self, out: int) -> bool:
        data = os.read(out, 1 << 16)
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "item" in said:
                self.outcome.items.append(said["item"])
            if "error" in said or "end" in said:
                self.outcome.error, self.outcome.ended = said.get("error"), "end" in said
                self._told_s = said["at_s"]
            if len(self.outcome.items) in (1, AT) or "item" not in said:
                self._estate = Estate.of(self._program.pid)
        return bool(data)

    def _due(self) -> bool:
        if not self._row.act:
            return False
        if self._row.how:
            return bool(self._log.incidents())
        return len(self.outcome.items) >= AT

    def _act(self) -> None:
        """Do to the program what the row wants."""
        time.sleep(SETTLE_S)
        self._estate = Estate.of(self._program.pid)
        *group, name = self._row.act.split()
        self._acted_s = time.monotonic()
        (os.killpg if group else os.kill)(self._program.pid, signal.Signals[name])

    def _give_up(self) -> None:
        self.outcome.hangs = True
        self._estate = Estate.of(self._program.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._program.pid, signal.SIGINT)
        try:
            self._program.wait(CTRL_C_S)
            self.outcome.ctrl_c = True
        except subprocess.TimeoutExpired:
            self.outcome.ctrl_c = False
            self._program.kill()


def hear_ctrl_c() -> None:
    """For children: a shell's background jobs ignore Ctrl-C, and so would all below them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _command(system: str, row: Row, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.chaotic.peers", system, row.name, str(folder)]
    if not row.full:
        return command
    unshare = shutil.which("unshare")
    if unshare is None:
        raise SystemExit("a /dev/shm of its own needs the command unshare")
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$0" "$@"'
    return [unshare, "--mount", "sh", "-c", mount, *command]


def _orphans(program: int) -> list[psutil.Process]:
    """What lives below this process apart from `program`; the dead are buried."""
    found = []
    for one in psutil.Process().children(recursive=True):
        try:
            if one.status() == psutil.STATUS_ZOMBIE:
                if one.pid != program:
                    os.waitpid(one.pid, os.WNOHANG)
            elif one.pid != program:
                found.append(one)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return found
