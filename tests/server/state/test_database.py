"""The server's database: transactions, versions, what it refuses."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from splitpipe.errors import FormatError, StorageError, UnsupportedVersion
from splitpipe.server.state import Database, new_id, now_s, open_database
from splitpipe.server.state.tables import (
    SCHEMA_VERSION,
    column_sets,
    datasets,
    meta,
    metadata,
    tokens,
)


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def add_dataset(database: Database, name: str) -> str:
    identity = new_id()
    with database.write() as connection:
        connection.execute(
            datasets.insert().values(id=identity, name=name, join_rule="left", created_at=now_s())
        )
    return identity


def count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(datasets)).scalar_one())


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with open_database(url_of(path)) as database:
        add_dataset(database, "one")
    with open_database(url_of(path)) as database:
        assert count(database) == 1
        with database.read() as connection:
            assert connection.scalar(select(meta.c.value)) == str(SCHEMA_VERSION)


def test_an_error_undoes_its_transaction(tmp_path: Path) -> None:
    with open_database(url_of(tmp_path / "state.sqlite")) as database:
        row = {"id": new_id(), "name": "x", "join_rule": "left", "created_at": 0.0}
        with pytest.raises(IntegrityError), database.write() as connection:
            connection.execute(datasets.insert(), [row, row])
        assert count(database) == 0


def test_a_name_twice_is_the_rooms_own_error(tmp_path: Path) -> None:
    with open_database(url_of(tmp_path / "state.sqlite")) as database:
        add_dataset(database, "one")
        with pytest.raises(IntegrityError):
            add_dataset(database, "one")


def test_what_belongs_to_a_row_goes_with_it(tmp_path: Path) -> None:
    with open_database(url_of(tmp_path / "state.sqlite")) as database:
        identity = add_dataset(database, "one")
        with database.write() as connection:
            connection.execute(
                column_sets.insert().values(
                    id=new_id(),
                    dataset_id=identity,
                    name="main",
                    location="data",
                    format="csv",
                    position=0,
                    columns={"x": "int"},
                    status="ready",
                    created_at=now_s(),
                )
            )
        with database.write() as connection:
            connection.execute(datasets.delete())
        with database.read() as connection:
            assert connection.execute(select(column_sets)).all() == []


def test_writers_of_several_threads_and_databases_stand_in_line(tmp_path: Path) -> None:
    url = url_of(tmp_path / "state.sqlite")
    with open_database(url) as first, open_database(url) as second:
        failed: list[BaseException] = []

        def write(database: Database, name: str) -> None:
            try:
                for number in range(20):
                    add_dataset(database, f"{name}-{number}")
            except BaseException as error:
                failed.append(error)

        threads = [
            threading.Thread(target=write, args=(database, f"{number}"))
            for number, database in enumerate((first, first, second, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert count(first) == 80


def test_a_reader_sees_one_state_and_holds_up_no_writer(tmp_path: Path) -> None:
    with open_database(url_of(tmp_path / "state.sqlite")) as database:
        add_dataset(database, "one")
        with database.read() as connection:
            before = connection.execute(select(datasets.c.name)).all()
            add_dataset(database, "two")
            assert connection.execute(select(datasets.c.name)).all() == before
        assert count(database) == 2


def check_rows_in_one_transaction(url: str) -> None:
    """All rows of all statements are there, or none."""
    insert = "INSERT INTO meta (key, value) VALUES (:key, :value)"
    with open_database(url) as database:
        some = [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]
        database.write_rows([(insert, some), (insert, [{"key": "c", "value": "3"}])])
        with pytest.raises((StorageError, IntegrityError)):
            database.write_rows([(insert, [{"key": "d", "value": "4"}]), (insert, some)])
        add_dataset(database, "others write, too")
        database.write_rows([("UPDATE meta SET value = :value WHERE key = :key", some[:1])])
    with open_database(url) as database, database.read() as connection:
        keys = connection.execute(select(meta.c.key).order_by(meta.c.key)).scalars().all()
        assert keys == ["a", "b", "c", "schema_version"]


def test_rows_in_one_transaction(tmp_path: Path) -> None:
    check_rows_in_one_transaction(url_of(tmp_path / "state.sqlite"))


def test_a_newer_version_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with open_database(url_of(path)) as database, database.write() as connection:
        connection.execute(meta.update().values(value=str(SCHEMA_VERSION + 1)))
    with pytest.raises(UnsupportedVersion, match="newer splitpipe"):
        open_database(url_of(path))
    with sqlite3.connect(path) as plain:
        assert plain.execute("select value from meta").fetchone() == (str(SCHEMA_VERSION + 1),)
    plain.close()


def test_somebody_elses_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with sqlite3.connect(path) as plain:
        plain.execute("create table tasks (what text)")
    plain.close()
    with pytest.raises(FormatError, match="another program"):
        open_database(url_of(path))


def test_tables_of_others_beside_ours_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with sqlite3.connect(path) as plain:
        plain.execute("create table theirs (what text)")
    plain.close()
    with open_database(url_of(path)) as database:
        add_dataset(database, "one")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(FormatError, match="no database"):
        open_database(url_of(path))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        open_database(url_of(tmp_path / "missing" / "state.sqlite"))


@pytest.mark.parametrize("url", ["", "state.sqlite", "nonsense://x", "mysql+nothing://x/y"])
def test_a_url_that_means_nothing(url: str) -> None:
    with pytest.raises((FormatError, StorageError)):
        open_database(url)


def test_no_password_and_no_value_is_told() -> None:
    with pytest.raises(StorageError) as caught:
        open_database("postgresql://me:hunter2@127.0.0.1:9/nothing?connect_timeout=2")
    assert "hunter2" not in str(caught.value)


def test_values_are_no_part_of_an_error(tmp_path: Path) -> None:
    with open_database(url_of(tmp_path / "state.sqlite")) as database:
        row = {"id": new_id(), "name": "x", "role": "admin", "hash": "abc", "created_at": 0.0}
        with database.write() as connection:
            connection.execute(tokens.insert().values(row))
        with pytest.raises(IntegrityError) as caught, database.write() as connection:
            connection.execute(tokens.insert().values({**row, "id": new_id()}))
        assert "abc" not in str(caught.value)


def test_every_table_has_a_key() -> None:
    assert all(table.primary_key.columns for table in metadata.tables.values())
