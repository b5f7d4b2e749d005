"""A catalog of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from splitpipe.server.catalog import Datasets, Locations
from splitpipe.server.state import open_database
from tests.server_fixtures import bucket, s3_server

__all__ = ["bucket", "catalog", "data", "s3_server"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "root" / "data"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def catalog(data: Path) -> Iterator[Datasets]:
    root = data.parent
    locations = Locations(str(data), cache=str(root / "cache"))
    with open_database(f"sqlite:///{root}/state.sqlite") as database:
        made = Datasets(database, locations, indices=str(root / "indices"))
        yield made
        made.close()
