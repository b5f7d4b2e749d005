"""Ctrl-C at any place ends no reading: what was on its way comes next, and closing ends."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.client.front import Front, fronted
from tests.interrupting import at_each_place, interrupted

AHEAD = 50
"""Batches behind the last one that was read: whoever held one has given it back by then."""


def numbers_from(front: Front, last: int) -> list[int]:
    """What nobody has had yet, to somewhat behind `last`."""
    with front.loader() as loader:
        found = [next(loader)["number"]]
        while found[-1] <= last + AHEAD:
            found.append(next(loader)["number"])
    return found


@pytest.mark.parametrize(("transport", "step"), [("zmq", 17), ("http", 127)])
@pytest.mark.deadline(120)
def test_reading(tmp_path: Path, transport: str, step: int) -> None:
    with fronted(tmp_path, batches=40_000) as front:
        seen: list[int] = []

        def attempt(place: int) -> bool:
            with front.loader(transport=transport) as loader:

                def read(count: int) -> None:
                    for batch in islice(loader, count):
                        seen.append(batch["number"])  # noqa: PERF401  each at once

                read(1)
                hit = interrupted(lambda: read(20), place)
                read(1)
            return hit

        at_each_place(attempt, step=step)
        assert sorted(seen) == seen
        every = sorted(seen + numbers_from(front, max(seen)))
        assert every == list(range(len(every)))


def test_closing(tmp_path: Path) -> None:
    with fronted(tmp_path, batches=40_000) as front:

        def attempt(place: int) -> bool:
            loader = front.loader()
            for _ in range(5):
                next(loader)
            hit = interrupted(loader.close, place)
            loader.close()
            assert next(loader, "over") == "over"
            return hit

        at_each_place(attempt, step=3)


def test_by_hand_the_one_before_is_still_in_hand(tmp_path: Path) -> None:
    with fronted(tmp_path, batches=40_000) as front:

        def attempt(place: int) -> bool:
            with front.loader(ack="manual") as loader:
                before = next(loader)["number"]
                hit = interrupted(lambda: next(loader), place)
                if hit:
                    assert loader.sequence == before
                    loader.ack()
                    assert next(loader)["number"] == before + 1
                loader.ack()
                loader.ack(before)
            return hit

        at_each_place(attempt)
