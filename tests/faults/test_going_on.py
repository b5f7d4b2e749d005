"""A program that is killed again and again, and goes on from its last checkpoint every time."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

import splitpipe as sp
from tests.faults.places import same
from tests.runtime.running import running

LONG = os.environ.get("SPLITPIPE_FAULTS") == "long"
COUNT = 3000
EVERY = 40
LIVES = 30 if LONG else 4

pytestmark = pytest.mark.deadline(600 if LONG else 60)

BODY = """
    import splitpipe as sp
    from tests.faults.test_going_on import EVERY, pipeline

    def main():
        checkpoint = sp.LoaderCheckpoint({path!r})
        state = checkpoint.load() if checkpoint.exists else None
        with pipeline().loader(state=state, start_method={method!r}) as loader:
            for number, item in enumerate(loader, 1):
                print(item, flush=True)
                if number % EVERY == 0:
                    print("saving", flush=True)
                    checkpoint.save(loader.state_dict())
                    print("saved", flush=True)
        print("end", flush=True)

    if __name__ == "__main__":
        main()
"""


def even(x: int) -> bool:
    return x % 5 != 0


def pipeline() -> sp.Pipeline:
    """A pool, a filter, a buffer that holds things back, another process."""
    pipe = sp.Pipeline(range(COUNT), shuffle="global", seed=4).map(same, workers=2)
    return pipe.filter(even).shuffle(50).map(same, workers=1, name="last")


def saved(said: list[str], start: int) -> list[int]:
    """Where the next life may begin: behind the last checkpoint that was made, or being made."""
    places, at = [start], start
    for line in said:
        if line == "saving":
            places.append(at)
        elif line == "saved":
            del places[:-1]
        elif line != "end":
            at += 1
    return places


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"] if LONG else ["fork"])
def test_every_item_comes_in_its_place(tmp_path: Path, method: str) -> None:
    rng = random.Random(5)
    expected = [str(x) for x in pipeline()]
    body = BODY.format(path=str(tmp_path / "checkpoint.json"), method=method)
    places = [0]
    for life in range(LIVES):
        folder = tmp_path / str(life)
        folder.mkdir()
        with running(folder, body) as program:
            wanted = rng.randrange(20, 400) if life < LIVES - 1 else 10**9
            said: list[str] = []
            assert program.process.stdout is not None
            while len(said) < wanted and (not said or said[-1] != "end"):
                line = program.process.stdout.readline().strip()
                assert line, program.process.stderr and program.process.stderr.read()
                said.append(line)
            program.kill(signal.SIGKILL)
            # Not communicate(): it leaves out what was read ahead of the last line.
            said += program.process.stdout.read().split()
            program.process.wait()
        items = [line for line in said if line not in ("saving", "saved", "end")]
        begun = [at for at in places if expected[at : at + len(items)] == items]
        assert begun, f"life {life} began with {items[:3]}, not at one of {places}"
        places = saved(said, begun[0])
    assert said[-1] == "end"
    assert expected[begun[0] :] == items
