"""The servers that tests of remote datasets read from, and datasets that lie there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from tests.remote.making import Place, placed
from tests.server_fixtures import bucket, file_server, patient, s3_proxy, s3_server
from tests.servers import S3Server

__all__ = ["bucket", "file_server", "patient", "s3_proxy", "s3_server"]


@pytest.fixture(scope="session", autouse=True)
def _server_lives_longer_than_a_test(s3_server: S3Server) -> None:
    """So that no test is taken for the one that left it behind."""


@pytest.fixture(params=["file", "http", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for datasets, one in each kind of store."""
    return placed(request.param, request, tmp_path)


@pytest.fixture
def in_s3(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for datasets in S3."""
    return placed("s3", request, tmp_path)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., sp.Dataset]]:
    """Opens datasets of a place, with a cache of the test's, and closes them."""
    datasets: list[sp.Dataset] = []

    def open_at(place: Place, name: str, **options: Any) -> sp.Dataset:
        options = {"cache_dir": tmp_path / "cache", **options}
        dataset = sp.open_dataset(place.url(name), storage_options=place.options, **options)
        datasets.append(dataset)
        return dataset

    yield open_at
    for dataset in datasets:
        dataset.close()
