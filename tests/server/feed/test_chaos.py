"""A server that is killed again and again: its clients notice nothing but that it takes longer."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .making import Dealer, in_threads, job_of, wait_for
from .parent import Parent


class Stubborn(Dealer):
    """A client that comes back, and counts what it has acknowledged for certain."""

    def read_through(self, seen: list[int], may_go_on: Callable[[], bool]) -> None:
        """Read to the end, whatever becomes of the server meanwhile."""
        self.connect()
        heard_s = time.monotonic()
        while self.total is None or self.unconfirmed:
            if self.listen(0.1):
                heard_s = time.monotonic()
            if self.refused or time.monotonic() - heard_s > 2.0:
                self.refused.clear()
                self.connect()
                heard_s = time.monotonic()
            while may_go_on() and (taken := self.take(1)):
                seen += taken
                self.done(taken)


def killed(folder: Path, *, times: int, batches: int, **told: int) -> None:
    """Kill a server `times` times while two clients read; check all that was promised."""
    parent = Parent(folder, job_of({"lease_s": 60.0}, batches=batches, **told))
    parent.start()
    seen: list[list[int]] = [[], []]
    deaths = 0

    def due() -> bool:
        """Whether so much was read that it is time for another death."""
        return deaths < times and sum(map(len, seen)) >= batches * (deaths + 1) // (times + 1)

    clients = [Stubborn(parent, f"client{n}", window=8) for n in range(2)]  # type: ignore[arg-type]
    chance = random.Random(7)

    def kill() -> None:
        nonlocal deaths
        pause = threading.Event()
        while deaths < times:
            wait_for(due, until_s=120.0)
            pause.wait(chance.random() * 0.1)  # somewhere in what follows
            parent.kill()
            deaths += 1
            parent.start()

    try:
        in_threads(
            kill,
            *(
                lambda c=c, s=s: c.read_through(s, lambda: not due())
                for c, s in zip(clients, seen, strict=True)
            ),
        )
        status = wait_for(
            lambda: (s := parent.ask(what="status")) and s["state"] == "done" and s, until_s=120.0
        )
    finally:
        for client in clients:
            client.close(bye=False)
        parent.kill()
    assert sorted(seen[0] + seen[1]) == list(range(batches)), "each once"
    assert status["batches"]["completed"] == batches
    assert status["completed"] == sum(number % 3 + 1 for number in range(batches))
    assert status["in_progress"] == {"0": 0}
    assert status["returned"] == 0


@pytest.mark.deadline(180)
@pytest.mark.long
def test_three_deaths(tmp_path: Path) -> None:
    killed(tmp_path, times=3, batches=400)
