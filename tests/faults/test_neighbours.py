"""Clean-up never touches what another program owns.

Two loaders and a foreign program side by side, whose names look like ours; and every name that a
program removes, and every process that it signals, heard of by Python's own audit events.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from tests.faults.auditing import SITE, Deeds
from tests.faults.places import large
from tests.runtime.running import ROOT, Program, running

LONG = os.environ.get("SPLITPIPE_FAULTS") == "long"

pytestmark = pytest.mark.deadline(60)

PROGRAM = """
    import hashlib, sys, threading
    import numpy as np
    import splitpipe as sp
    from tests.faults.places import large, stuck_at_close

    def main():
        pipe = sp.Pipeline(range(400), shuffle="global", seed=3).map(large, workers=2)
        pipe = pipe.cache({cache!r}).through(stuck_at_close, workers=1).map(same, workers=1)
        total = hashlib.sha256()
        with pipe.loader(transport={transport!r}) as loader:
            for number, batch in enumerate(loader):
                total.update(batch.tobytes())
                if number == 20:
                    print("running", flush=True)
                    {then}
        print(total.hexdigest())

    def same(x):
        return x

    if __name__ == "__main__":
        main()
"""


def pairs(*endings: str) -> list[tuple[str, str]]:
    """Every end with every transport, or each of both once."""
    transports = ("pipe", "zmq", "zmq+tcp")
    return list(product(endings, transports) if LONG else zip(endings, transports, strict=True))


def expected() -> str:
    total = hashlib.sha256()
    for x in sp.Pipeline(range(400), shuffle="global", seed=3):
        total.update(large(x).tobytes())
    return total.hexdigest()


def program(folder: Path, name: str, transport: str, *, then: str = "pass") -> Any:
    place = folder / name
    place.mkdir()
    body = PROGRAM.format(transport=transport, then=then, cache=str(place / "cached"))
    return running(place, body)


@contextlib.contextmanager
def foreign(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A foreign program whose temporary folder is `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.chaotic.stranger"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()
        assert process.wait() == 0


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("well?\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def run_to_its_end(one: Program) -> str:
    status, out, errors = one.finish()
    assert (status, errors) == (0, "")
    return out.split()[-1]


@pytest.mark.parametrize(("ending", "transport"), pairs("kill", "interrupt", "close"))
def test_a_neighbour_and_a_stranger_notice_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, ending: str
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(Program, "shared_folder", shared)
    then = "break" if ending == "close" else "threading.Event().wait()"
    go_on = "sys.stdin.readline()"
    with (
        foreign(shared) as stranger,
        program(tmp_path, "one", transport, then=then) as one,
        program(tmp_path, "two", transport, then=go_on) as two,
    ):
        assert ask(stranger) == "intact"
        assert one.first_line() == two.first_line() == "running"
        if ending != "close":
            one.kill(signal.SIGKILL if ending == "kill" else signal.SIGINT)
        one.process.wait()
        assert ask(stranger) == "intact"
        two.process.stdin.write("\n")
        two.process.stdin.flush()
        assert run_to_its_end(two) == expected()
        assert ask(stranger) == "intact"


@pytest.mark.parametrize(("then", "transport"), pairs("pass", "break", "1 / 0"))
def test_whatever_is_removed_or_killed_was_made_by_the_same_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, then: str
) -> None:
    """Told by Python's audit events, of every process of the program."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("DEEDS", str(tmp_path / "deeds"))
    monkeypatch.setattr(Program, "python_path", (tmp_path, ROOT))
    with program(tmp_path, "one", transport, then=then) as one:
        one.finish()
    deeds = Deeds.read(tmp_path / "deeds")
    assert len(deeds.pids) >= 6  # consumer, fork server, four workers
    assert deeds.removed
    # One worker does not leave when it is asked to.
    assert bool(deeds.killed) == (then != "pass")
    assert deeds.foreign == []
