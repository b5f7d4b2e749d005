"""Jobs killed by SIGKILL: the worker, the parent, everybody; at commits, between them, at first.

However often, the files are those of a run that nobody disturbed. In the suite some of the calls
that a job makes of its disk are struck; all of them, in some minutes:

    SPLITPIPE_SAFETY=long python -m pytest tests/jobs/test_killed.py
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import splitpipe as sp
from splitpipe.testing.faults import Call, Strike, Tap, die, die_halfway, fail, run_in_child
from tests.cli.command import environment
from tests.jobs import making
from tests.jobs.making import COUNT, JOBS, assert_same_files, place

LONG = os.environ.get("SPLITPIPE_SAFETY") == "long"
MORE = pytest.mark.skipif(not LONG, reason="one of its kind is enough in the suite")
STRUCK = 10_000 if LONG else 14
FEW = 40  # records, where every call is struck

PROGRAM = """
import sys
from pathlib import Path
from splitpipe.jobs import running
from tests.jobs.making import JOBS

def tell(progress):
    print(progress.done, progress.made, flush=True)

if __name__ == "__main__":
    running._MOST_UNIT = 7
    kind, source, out, workers = sys.argv[1:]
    JOBS[kind](Path(source), Path(out)).run(workers=int(workers), progress=tell)
"""


def killed_at(kind: str, data: Path, out: Path, *, workers: int, line: int, group: bool) -> int:
    """Run a job as a program and kill it, or its group, at a line of what it tells.

    Returns:
        How many lines it told.
    """
    script = out.parent / "program.py"
    script.write_text(PROGRAM)
    program = [sys.executable, str(script), kind, str(data), str(out), str(workers)]
    told = 0
    with subprocess.Popen(
        program, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for _ in process.stdout:
            told += 1
            if told == line:
                if group:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
                break
        process.stdout.read()  # until nobody writes any more: its workers have left too
    return told


@pytest.mark.long
@pytest.mark.deadline(120)
@pytest.mark.parametrize(
    ("kind", "workers", "group"),
    [
        ("plain", 2, False),
        pytest.param("many", 2, True, marks=MORE),
        pytest.param("column", 2, False, marks=MORE),
        ("column", 0, True),
    ],
)
def test_programs_killed_again_and_again(
    tmp_path: Path, kind: str, workers: int, group: bool
) -> None:
    data, wanted = place(kind, tmp_path, "wanted")
    JOBS[kind](data, wanted).run(workers=0)
    _, out = place(kind, tmp_path, "out")
    for line in (1, 6, 4, 2, 11) if LONG else (1, 6):
        told = killed_at(kind, data, out, workers=workers, line=line, group=group)
        assert told == line
    killed_at(kind, data, out, workers=workers, line=-1, group=group)
    assert_same_files(out, wanted)


@pytest.mark.parametrize("at", [0, 61])
def test_a_worker_killed(tmp_path: Path, at: int) -> None:
    """The run heals itself or ends with an error; in the end the files are the same."""
    data = making.source(tmp_path / "source")
    flag = tmp_path / "died"

    def job(out: Path) -> sp.Job:
        dies = making.dies_once(str(flag), at)
        pipe = sp.Pipeline(sp.open_dataset(data)).map(dies, name="dies").map(making.counted)
        return sp.Job(pipe, out, task=30, bins=2)

    with contextlib.suppress(sp.WorkerDied):
        job(tmp_path / "out").run(workers=2)
    assert flag.exists()
    assert job(tmp_path / "out").run(workers=2).finished
    job(tmp_path / "wanted").run(workers=0)
    assert_same_files(tmp_path / "out", tmp_path / "wanted")


def _changes(call: Call) -> bool:
    return call.changes


def spread(count: int, many: int) -> list[int]:
    """About so many of the numbers from 1 on, the first and the last among them."""
    step = max(1, count // many)
    return sorted({*range(1, count + 1, step), count})


def small(kind: str, data: Path, out: Path) -> None:
    JOBS[kind](data, out, task=15).run(workers=0)


@pytest.mark.long
@pytest.mark.deadline(1800 if LONG else 120)
@pytest.mark.parametrize("kind", ["plain", "column"])
@pytest.mark.parametrize("how", [die, die_halfway])
def test_killed_at_every_call(tmp_path: Path, kind: str, how: object) -> None:
    data, wanted = place(kind, tmp_path, "wanted", FEW)
    counting = Strike(-1, die, chosen=_changes)
    with Tap(wanted, counting):
        small(kind, data, wanted)
    assert counting.seen > 30
    for number in spread(counting.seen, STRUCK):
        _, out = place(kind, tmp_path, f"out-{number}", FEW)
        strike = Strike(number, how, chosen=_changes)  # type: ignore[arg-type]

        def work(out: Path = out, strike: Strike = strike) -> None:
            with Tap(out, strike):
                small(kind, data, out)

        assert run_in_child(work) == signal.SIGKILL
        small(kind, data, out)
        assert_same_files(out, wanted)
        assert sp.check_dataset(out).ok


@pytest.mark.long
@pytest.mark.deadline(1800 if LONG else 120)
@pytest.mark.parametrize("kind", ["plain", "column"])
def test_a_disk_that_fails_at_every_call(tmp_path: Path, kind: str) -> None:
    data, wanted = place(kind, tmp_path, "wanted", FEW)
    counting = Strike(-1, die, chosen=_changes)
    with Tap(wanted, counting):
        small(kind, data, wanted)
    for number in spread(counting.seen, STRUCK):
        _, out = place(kind, tmp_path, f"out-{number}", FEW)
        strike = Strike(number, fail(errno.ENOSPC), chosen=_changes, forever=True)
        with contextlib.suppress(sp.StorageError), Tap(out, strike):
            small(kind, data, out)
        small(kind, data, out)
        assert_same_files(out, wanted)


def test_everybody_killed_in_the_middle_of_a_record(tmp_path: Path) -> None:
    """By a record itself, as when the machine is taken away."""
    data = making.source(tmp_path / "source")
    flag = tmp_path / "died"
    program = f"""
import os, sys
from pathlib import Path
import splitpipe as sp
from tests.jobs import making

if __name__ == "__main__":
    os.environ["JOB_GROUP"] = str(os.getpgrp())
    dies = making.dies_once({str(flag)!r}, 100, everybody=True)
    pipe = sp.Pipeline(sp.open_dataset({str(data)!r})).map(dies, name="dies")
    job = sp.Job(pipe.map(making.counted), sys.argv[1], task=30, bins=2)
    print(job.run(workers=int(sys.argv[2])).finished)
"""
    script = tmp_path / "program.py"
    script.write_text(program)

    def run(out: Path, workers: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), str(out), str(workers)],
            env=environment(),
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=120,
            check=False,
        )

    assert run(tmp_path / "out", 2).returncode == -signal.SIGKILL
    assert flag.exists()
    assert run(tmp_path / "out", 2).stdout == "True\n"
    assert run(tmp_path / "wanted", 0).stdout == "True\n"
    assert len(sp.open_dataset(tmp_path / "out")) == COUNT
    assert_same_files(tmp_path / "out", tmp_path / "wanted")
