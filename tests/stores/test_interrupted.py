"""Ctrl-C at any place of a read: the next one has its own bytes, and not what the last one left."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from splitpipe.stores import Store, open_store
from tests.interrupting import at_each_place, interrupted
from tests.server_fixtures import Bucket
from tests.servers import FileServer

DATA = np.random.default_rng(0).bytes(1_000_000)
RANGES = [(0, 100), (5_000, 90_000), (200, 300), (1_000, 900_000)]


PIPES = pytest.mark.leaks("a pipe that was just made is lost with whoever was interrupted in that")


@PIPES
@pytest.mark.deadline(120)
def test_over_http(file_server: FileServer) -> None:
    Path(file_server.folder, "x").write_bytes(DATA)
    with closing(open_store(file_server.url)) as store:
        check(store)


@PIPES
@pytest.mark.deadline(120)
def test_from_s3(bucket: Bucket) -> None:
    bucket.server.put(f"{bucket.name}/x", DATA)
    with closing(open_store(bucket.url, storage_options=bucket.options)) as store:
        check(store)


def check(store: Store) -> None:
    def read() -> None:
        for start, stop in RANGES:
            assert store.read("x", start, stop) == DATA[start:stop]

    def attempt(place: int) -> bool:
        hit = interrupted(read, place)
        read()
        return hit

    at_each_place(attempt, step=7)
