"""The whole service, killed again and again while two loaders read one iteration.

``SPLITPIPE_DEATHS=50`` kills it fifty times, which takes some minutes.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from splitpipe.client import connect
from tests.server.serving import Served, serving

from .making import in_threads, wait_for

BATCH = 4
DEATHS = int(os.environ.get("SPLITPIPE_DEATHS", "6"))


def read_while_it_dies(server: Served, *, deaths: int, rows: int, transport: str) -> None:
    """Two loaders share an iteration of `rows` rows, and the server dies so often meanwhile."""
    with connect(server.url) as client:
        client.datasets.create("numbers")
        with client.writer("numbers", "main") as writer:
            writer.write_many([{"n": number} for number in range(rows)])
    seen: list[list[int]] = [[], []]
    died = 0
    over = threading.Event()

    def due() -> bool:
        return died < deaths and sum(map(len, seen)) >= rows * (died + 1) // (deaths + 1)

    def read(mine: list[int]) -> None:
        pause = threading.Event()
        with (
            connect(server.url) as client,
            client.iterate(
                "numbers",
                batch_size=BATCH,
                shuffle="global",
                seed=3,
                id="shared-by-two",
                transport=transport,
                prefetch=8,
            ) as loader,
        ):
            for batch in loader:
                mine.extend(int(number) for number in batch["n"])
                while due() and not over.is_set():
                    pause.wait(0.01)

    def kill() -> None:
        nonlocal died
        try:
            while died < deaths:
                wait_for(due, until_s=90.0)
                server.kill()
                died += 1
                server.start()
        finally:
            over.set()

    in_threads(kill, lambda: read(seen[0]), lambda: read(seen[1]))
    assert sorted(seen[0] + seen[1]) == list(range(rows)), "each once"
    with connect(server.url) as client:
        told = wait_for(
            lambda: (t := client.iterations.get("shared-by-two"))["status"] == "done" and t
        )
    progress = told["progress"]
    assert progress["completed"] == rows
    assert progress["batches"]["completed"] == -(-rows // BATCH)
    assert progress["in_progress"] == {"0": 0}


@pytest.mark.long
@pytest.mark.deadline(240)
@pytest.mark.parametrize("transport", ["zmq", "http"])
def test_two_deaths_of_a_server(tmp_path: Path, transport: str) -> None:
    with serving(tmp_path / "root") as server:
        read_while_it_dies(server, deaths=2, rows=800, transport=transport)


@pytest.mark.long
@pytest.mark.deadline(1500)
def test_many_deaths_of_a_server(tmp_path: Path) -> None:
    with serving(tmp_path / "root") as server:
        read_while_it_dies(server, deaths=DEATHS, rows=160 * DEATHS, transport="zmq")
