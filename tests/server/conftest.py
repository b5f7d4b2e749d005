"""Fixtures of the data service's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.serving import Served, serving

STANDING = frozenset({"guarded", "server", "standing"})
"""Fixtures of servers that stay for the tests of a module. A test of the leak check's has no place
in such a module: the server that stays starts its process in reserve whenever it likes."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Excuse tests at a server that stays: it starts a process in reserve whenever it likes."""
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        if STANDING & set(getattr(item, "fixturenames", ())) and not item.get_closest_marker(
            "leaks"
        ):
            item.add_marker(pytest.mark.leaks("the server keeps a process in reserve"))


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for all tests of a module that neither end it nor expect it to be empty."""
    root = tmp_path_factory.mktemp("standing") / "root"
    with serving(root, "--allow-root", str(tmp_path_factory.getbasetemp())) as server:
        yield server


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server of this test alone, which may also read what lies in ``tmp_path``.

    Everything is allowed without a token; see `tests.server.serving` for other options.
    """
    with serving(tmp_path / "root", "--allow-root", str(tmp_path)) as server:
        yield server


@pytest.fixture
def emptied(standing: Served) -> Iterator[Served]:
    """A server whose iterations end with the test, and their engines with them."""
    yield standing
    for iteration in standing.json("GET", "/api/v1/iterations"):
        standing.json("DELETE", f"/api/v1/iterations/{iteration['id']}")
