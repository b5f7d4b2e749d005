"""The same database in PostgreSQL: transactions, versions, a whole server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.exc import IntegrityError

from splitpipe.errors import StorageError, UnsupportedVersion
from splitpipe.server.security import Tokens
from splitpipe.server.state import Database, open_database
from splitpipe.server.state.tables import meta, metadata
from tests.server.app.test_iterations import ROWS, Door, make_dataset, make_iteration
from tests.server.feed.making import Dealer
from tests.server.serving import run_splitpipe, serving
from tests.server.state.postgresql import cluster
from tests.server.state.test_database import add_dataset, check_rows_in_one_transaction, count

pytestmark = [pytest.mark.long, pytest.mark.deadline(180)]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with cluster() as url:
        yield url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    """An empty database."""
    yield server
    engine = sqlalchemy.create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    metadata.drop_all(engine)
    engine.dispose()


def test_what_was_written_is_there_when_it_is_opened_again(url: str) -> None:
    with open_database(url) as database:
        assert database.dialect == "postgresql"
        add_dataset(database, "one")
        with pytest.raises(IntegrityError):
            add_dataset(database, "one")
        _, text = Tokens(database).create("me", role="run")
    with open_database(url) as database:
        assert count(database) == 1
        assert Tokens(database).check(text) is not None


def test_rows_in_one_transaction(url: str) -> None:
    check_rows_in_one_transaction(url)


def test_servers_that_begin_at_once_make_the_tables_once(url: str) -> None:
    failed: list[BaseException] = []

    def begin() -> None:
        try:
            open_database(url).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_writers_of_several_databases_lose_nothing(url: str) -> None:
    with open_database(url) as first, open_database(url) as second:

        def write(database: Database, name: str) -> None:
            for number in range(20):
                add_dataset(database, f"{name}-{number}")

        threads = [
            threading.Thread(target=write, args=(database, f"{number}"))
            for number, database in enumerate((first, first, second, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert count(first) == 80


def test_a_newer_version_is_refused(url: str) -> None:
    with open_database(url) as database, database.write() as connection:
        connection.execute(meta.update().values(value="99"))
    with pytest.raises(UnsupportedVersion, match="99"):
        open_database(url)


def test_a_database_that_is_not_there(url: str) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        open_database(url.replace("/postgres?", "/nothing?"))


def test_a_server_keeps_its_state_there(url: str, tmp_path: Path) -> None:
    options = ("--database", url, "--allow-root", str(tmp_path))
    with serving(tmp_path / "root", *options) as server:
        name = make_dataset(server, tmp_path)
        made = make_iteration(server, dataset=name)
        with Dealer(Door(server, made["id"]), "me", window=2) as client:
            client.read_some(3)
            server.kill()
            server.start()
            client.connect()
            assert sorted(client.read_all(until_s=60)) == list(range(10))
        told = server.json("GET", f"/api/v1/iterations/{made['id']}")
        assert told["progress"]["completed"] == ROWS
        assert not (server.root / "state.sqlite").exists()
        # Two servers would both go on with every iteration.
        done = run_splitpipe("serve", str(tmp_path / "other"), "--port", "0", "--database", url)
        assert done.returncode == 1
        assert "is used by another server" in done.stderr
