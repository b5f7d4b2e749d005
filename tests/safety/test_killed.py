"""Writers killed by SIGKILL: real processes, at moments that nobody chose, and at every call.

The last commit reads exactly, whatever was acknowledged is there, and the next writer goes on. One
directory is used by one writer after another until the last of them was killed.

In the suite about 60 are killed at random, and some of each session's calls. A thousand, and every
call, in about five minutes:

    SPLITPIPE_SAFETY=long python -m pytest tests/safety/test_killed.py
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from splitpipe.storage import DatasetWriter
from splitpipe.testing.faults import Strike, Tap, die, die_halfway, forked, run_in_child
from tests.safety.sessions import SESSIONS, Places, Records, Session, spread, write
from tests.safety.truth import assert_is, assert_next_writer_works, found_at

LONG = os.environ.get("SPLITPIPE_SAFETY") == "long"
KILLED = 1000 if LONG else 60
LIVES = 10  # one after another in the same directory
SIGKILL = 9


def history(rng: random.Random, there: Records) -> Iterator[tuple[dict[str, object], Records]]:
    """What a writer is going to do: options of its sessions, and what each commit makes of it."""
    while True:
        overwrite = rng.random() < 0.2
        there = () if overwrite else there
        options = {"overwrite" if overwrite else "append": True}
        if rng.random() < 0.4 or overwrite:
            options["bins"] = rng.choice((1, 2, 3, 7))
        length = rng.choice((3, 50, 400))
        added = tuple(rng.randbytes(rng.randrange(length)) for _ in range(rng.choice((1, 20, 150))))
        there += added
        yield options, there


def live(path: Path, seed: int, there: Records, tell: Callable[[], None]) -> None:
    """Write until someone ends it."""
    for options, after in history(random.Random(seed), there):
        before = 0 if "overwrite" in options else len(there)
        with DatasetWriter(path, **options) as writer:  # type: ignore[arg-type]
            added = after[before:]
            half = len(added) // 2
            writer.write_many(added[:half])
            writer.flush()
            writer.write_many(list(added[half:]))
            writer.commit()
            tell()
        there = after


def outcomes_of(seed: int, there: Records, told: int) -> list[Records | None]:
    """What was acknowledged, and the commit under way."""
    coming = history(random.Random(seed), there)
    states = [there, *(next(coming)[1] for _ in range(told + 1))]
    return list(states[told:])


@pytest.mark.long
@pytest.mark.deadline(3600 if LONG else 60)
@pytest.mark.parametrize("first", range(0, KILLED, LIVES))
def test_a_writer_killed_at_any_moment(tmp_path: Path, first: int) -> None:
    path = tmp_path / "ds"
    rng = random.Random(first)
    there: Records | None = None
    for seed in range(first, first + LIVES):
        with forked(partial(live, path, seed, there or ())) as child:
            child.listen(messages=rng.choice((0, 0, 1, 2, 5)))
            # Somewhere in what comes next, which takes a few milliseconds.
            child.listen(seconds=rng.random() * rng.choice((0.001, 0.003, 0.01)))
            assert child.kill() == SIGKILL
            told = child.told
        outcomes = outcomes_of(seed, there or (), told)
        if there is None and not told:
            outcomes[0] = None
        there = outcomes[found_at(path, outcomes)]
    assert_next_writer_works(path, [there])


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def killed(session: Session, path: Path, strike: Strike) -> bool:
    """Run a session in a child that is struck; whether it came to that."""

    def run() -> None:
        with Tap(path.parent, strike):
            session.run(path)

    return run_in_child(run) == SIGKILL


ELSEWHERE = ("create", "append", "append in other bins", "overwrite")


@pytest.mark.long
@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_a_writer_killed_at_every_call(places: Places, session: Session) -> None:
    if session.name in ELSEWHERE and not LONG:
        pytest.skip("tests/storage/test_crashes.py does this")
    path = places.new(session)
    counting = Strike(-1, die, chosen=lambda call: call.changes)
    with Tap(path.parent, counting):
        session.run(path)
    assert_is(path, session.after)
    seen = set()
    for number in spread(counting.seen, 10_000 if LONG else 20, first=counting.seen % 2):
        path = places.new(session)
        answer = die_halfway if number % 3 else die
        assert killed(session, path, Strike(number + 1, answer, chosen=lambda call: call.changes))
        seen.add(found_at(path, session.outcomes))
        if number % 3 == 0 or LONG:
            assert_next_writer_works(path, session.outcomes)
        places.drop(path)
    # `found_at` tells the first of two equal outcomes.
    all_outcomes = {session.outcomes.index(outcome) for outcome in session.outcomes}
    assert seen == all_outcomes if LONG else seen <= all_outcomes


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100 if LONG else 4))
def test_a_writer_killed_while_it_tidies_up_after_one_that_was_killed(
    tmp_path: Path, seed: int
) -> None:
    """And the one after that, and so on: nobody ever tidies up in peace."""
    rng = random.Random(seed)
    there: Records = tuple(b"%d" % n for n in range(100))
    path = write(tmp_path / "ds", there)
    survivors = 0
    for _ in range(40):
        options, after = next(history(rng, there))
        added = after if "overwrite" in options else after[len(there) :]
        strike = Strike(rng.randrange(1, 45), die_halfway, chosen=lambda call: call.changes)

        def run(strike: Strike = strike, options: Any = options, added: Records = added) -> None:
            with Tap(path, strike), DatasetWriter(path, **options) as writer:
                writer.write_many(added)

        survivors += not run_in_child(run)
        there = (there, after)[found_at(path, [there, after])]
    assert survivors < 40
    assert_next_writer_works(path, [there])
