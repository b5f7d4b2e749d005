"""Runs cases: a process for each system, rounds in turn, figures gathered.

Responsible for: children and their deadlines, the order of rounds, medians and spreads.

Rules:
- the systems of a case take turns (A B C, A B C, ...): a slow minute of the machine costs each of
  them one round, not one of them all;
- a child that fails, hangs or delivers something wrong has no figure; the reason stands instead;
- children of a case live side by side, but only one of them is ever asked to work.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.base import Case
from benchmarks.systems import missing, parse

__all__ = [
    "PREPARE_TIMEOUT_S",
    "ROUND_TIMEOUT_S",
    "CaseResult",
    "Child",
    "SystemResult",
    "run_case",
]

ROOT = Path(__file__).resolve().parent.parent
PREPARE_TIMEOUT_S = 300.0
ROUND_TIMEOUT_S = 120.0
ROUNDS = {"full": None, "quick": 3, "tiny": 2}


def _environment() -> dict[str, str]:
    """This process's; what its children start compiles a module once, as an installed program."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


@dataclass(slots=True)
class SystemResult:
    """What one system did in one case.

    Attributes:
        facts: What the case said before its first round: counts, sizes.
        rounds: The metrics of each round, in order.
        skipped: Why there is no figure, if there is none.
        failed: The reason is an error or a wrong result, not an absence.
    """

    system: str
    facts: dict[str, float] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)
    skipped: str | None = None
    failed: bool = False

    def values(self, metric: str) -> list[float]:
        """The figures of one metric, round by round."""
        return [metrics[metric] for metrics in self.rounds if metric in metrics]

    def median(self, metric: str) -> float | None:
        """The middle figure of a metric; None where there is none."""
        values = self.values(metric)
        return statistics.median(values) if values else None

    def summary(self) -> dict[str, Any]:
        """Everything, with medians and spreads, for the results file."""
        names = {name for metrics in self.rounds for name in metrics}
        spread = {}
        for name in sorted(names):
            values = self.values(name)
            spread[name] = {
                "median": statistics.median(values),
                "min": min(values),
                "max": max(values),
                "n": len(values),
            }
        return {**asdict(self), "summary": spread}


@dataclass(slots=True)
class CaseResult:
    """All systems of one case."""

    case: str
    title: str
    scale: str
    systems: dict[str, SystemResult] = field(default_factory=dict)

    def median(self, system: str, metric: str) -> float | None:
        """A figure by name; None where it was not taken."""
        found = self.systems.get(system)
        return found.median(metric) if found else None


class Child:
    """One process of ``benchmarks.child``.

    Args:
        job: what it is to do.
        log: what it prints is appended there.
        root: the tree whose code it runs.
    """

    def __init__(self, job: dict[str, Any], log: Path, *, root: Path = ROOT) -> None:
        self._log = log.open("ab")
        paths = [str(root), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=root,
            env={**_environment(), "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(b"")

    def ask(self, timeout_s: float) -> dict[str, Any]:
        """Let it take one step; gives its answer, or the reason why there is none."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has left: the answers say why
            self._process.stdin.write(b"next\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return {"error": f"no answer within {timeout_s:.0f} s"}
        if not line:
            return {"error": f"the process ended with status {self._process.wait(10)}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, and its whole group if it does not end by itself."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


def run_case(
    case: Case,
    systems: Sequence[str],
    *,
    scale: str,
    seed: int,
    directory: Path,
    rounds: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> CaseResult:
    """Measure `case` with every one of `systems`.

    Args:
        case: What to measure.
        systems: Names, each with ``@n`` where it is to have more than one worker.
        scale: ``full``, ``quick`` or ``tiny``.
        seed: Seeds every random choice.
        directory: Where datasets are written; what is written there is removed again.
        rounds: Rounds a system, instead of the case's own number.
        say: Is told what happens, a line at a time.
    """
    result = CaseResult(case.name, case.title, scale)
    place = directory / case.name
    count = rounds or ROUNDS[scale] or case.rounds
    children: dict[str, Child] = {}
    try:
        for system in systems:
            result.systems[system] = SystemResult(system)
            _prepare(case, result.systems[system], children, scale, seed, place, say)
        for number in range(count):
            say(f"{case.name}: round {number + 1} of {count}")
            for system in [s for s in systems if result.systems[s].skipped is None]:
                if case.fresh:
                    _start(case, result.systems[system], children, scale, seed, place)
                if result.systems[system].skipped is None:
                    _round(result.systems[system], children[system])
                if case.fresh and system in children:
                    children.pop(system).close()
    finally:
        for child in children.values():
            child.close()
        shutil.rmtree(place, ignore_errors=True)
    return result


def _prepare(
    case: Case,
    result: SystemResult,
    children: dict[str, Child],
    scale: str,
    seed: int,
    place: Path,
    say: Callable[[str], None],
) -> None:
    absent = missing(parse(result.system)[0])
    if absent:
        result.skipped = f"not installed ({', '.join(absent)})"
        say(f"{case.name}: {result.system} is {result.skipped}")
        return
    say(f"{case.name}: {result.system} prepares and is checked")
    _start(case, result, children, scale, seed, place)
    if case.fresh and result.system in children:
        children.pop(result.system).close()
    if result.skipped is not None:
        say(f"{case.name}: {result.system}: {result.skipped}")


def _start(
    case: Case,
    result: SystemResult,
    children: dict[str, Child],
    scale: str,
    seed: int,
    place: Path,
) -> None:
    """Start a child and let it prepare; its facts come after its correctness check."""
    directory = place / result.system
    directory.mkdir(parents=True, exist_ok=True)
    job = {
        "case": case.name,
        "system": result.system,
        "scale": scale,
        "directory": str(directory),
        "seed": seed,
    }
    child = children[result.system] = Child(job, directory.parent / f"{result.system}.log")
    answer = child.ask(PREPARE_TIMEOUT_S)
    if "metrics" in answer:
        result.facts = answer["metrics"]
        return
    children.pop(result.system).close()
    _give_up(result, answer, directory.parent / f"{result.system}.log")


def _round(result: SystemResult, child: Child) -> None:
    answer = child.ask(ROUND_TIMEOUT_S)
    if "metrics" in answer:
        result.rounds.append(answer["metrics"])
    else:
        _give_up(result, answer, None)


def _give_up(result: SystemResult, answer: dict[str, Any], log: Path | None) -> None:
    result.failed = "error" in answer
    result.skipped = answer.get("error") or f"unsupported: {answer.get('unsupported')}"
    if log is not None and result.failed and log.exists():
        tail = log.read_text(errors="replace").splitlines()[-12:]
        print("\n".join(f"    | {line}" for line in tail), file=sys.stderr)
