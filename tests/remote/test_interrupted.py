"""Ctrl-C at any place of reading a remote dataset: whoever reads on has the same records."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from tests.interrupting import at_each_place, interrupted
from tests.servers import FileServer

COUNT = 300


def record(number: int) -> dict[str, Any]:
    return {"n": number, "vector": np.arange(number, number + 2000, dtype=np.float32)}


@pytest.mark.deadline(180)
@pytest.mark.leaks("a file that was just opened is lost with whoever was interrupted in opening it")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the same, of connections
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("limit", "step"), [("1GB", 101), ("2MB", 401)])
def test_reading(tmp_path: Path, file_server: FileServer, limit: str, step: int) -> None:
    with sp.DatasetWriter(str(Path(file_server.folder, "data")), bins=3) as writer:
        writer.write_many([record(number) for number in range(COUNT)])
    url = f"{file_server.url}/data"

    def check(number: int, one: Any) -> None:
        assert one["n"] == number
        assert np.array_equal(one["vector"], record(number)["vector"])

    def attempt(place: int) -> bool:
        folder = tmp_path / f"cache{place}"
        with sp.open_dataset(url, cache_dir=folder, cache_limit=limit) as dataset:

            def read() -> None:
                for number in (7, 250, 8):
                    check(number, dataset[number])
                for number, one in enumerate(islice(dataset, 100)):
                    check(number, one)

            hit = interrupted(read, place)
            for number, one in enumerate(dataset):
                check(number, one)
            assert number == COUNT - 1
        return hit

    at_each_place(attempt, step=step)
