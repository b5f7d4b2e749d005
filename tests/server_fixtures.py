"""Fixtures of the servers in `tests.servers`; a folder's ``conftest.py`` imports those it uses.

Servers live as long as the session, so that a test pays a bucket and not a process.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from splitpipe.stores import RetryPolicy, open_store, patience
from splitpipe.testing.faults.proxy import FaultProxy
from tests.servers import FileServer, S3Server

__all__ = ["Bucket", "bucket", "file_server", "patient", "s3_proxy", "s3_server"]

_numbers = itertools.count()


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of the session's server.

    Attributes:
        name: of the bucket.
        url: ``s3://name``.
        options: the ``storage_options`` that lead there.
        server: that has it.
    """

    name: str
    url: str
    options: dict[str, Any]
    server: S3Server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    name = f"bucket-{os.getpid()}-{next(_numbers)}"
    s3_server.create_bucket(name)
    return Bucket(name, f"s3://{name}", s3_server.options, s3_server)


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of the S3 server; see `S3Server.options_at`."""
    with FaultProxy(s3_server.url) as proxy:
        yield proxy


@pytest.fixture
def file_server(tmp_path: Path) -> Iterator[FileServer]:
    """Serves the folder ``tmp_path / "served"``."""
    folder = tmp_path / "served"
    folder.mkdir()
    with FileServer(folder) as server:
        yield server


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process a server that is slow, because the machine is busy, is asked once: neither
    again, because it usually is quicker, nor a second time beside the first.
    """
    monkeypatch.setattr(patience, "LEAST_S", 60.0)
    monkeypatch.setattr(patience, "FIRST_S", 60.0)
    defaults = open_store.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "retry", RetryPolicy(hedges=0.0))
