"""Keys, metadata and SQL: what goes in comes out, and nothing but questions can be asked."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pickle
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError, StorageError
from splitpipe.storage import catalog_writer
from splitpipe.storage.catalog import SqliteCatalog
from splitpipe.storage.catalog_file import CatalogId, catalog_name, check_names, work_name
from splitpipe.storage.catalog_values import (
    bindable,
    declared_value,
    decode_meta,
    encode_meta,
    encode_metas,
)
from splitpipe.storage.catalog_writer import CatalogWriter
from splitpipe.storage.clause import checked_clause

DECLARED = {"length": "int64", "score": "float64", "lang": "str", "good": "bool", "tags": "json"}
NAMES = ["length", "score", "lang", "good", "tags", "text", "forecast", "row", "key", "meta"]


def metas(count: int) -> list[dict[str, Any]]:
    return [
        {
            "length": n,
            "score": n / 4,
            "lang": "en" if n % 2 else "de",
            "good": n % 3 == 0,
            "tags": [n, {"a": n}],
            "other": {"deep": n * 10},
        }
        for n in range(count)
    ]


@contextmanager
def writing(path: Path, previous: CatalogId | None = None, **options: Any) -> Iterator[Any]:
    options = {"metadata": DECLARED, "columns": ["text", "forecast"], **options}
    with CatalogWriter(str(path), 1, previous, **options) as writer:
        yield writer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CatalogId]:
    path = tmp_path_factory.mktemp("catalog")
    with writing(path) as writer:
        present = {"forecast": [n % 10 == 0 for n in range(100)]}
        writer.add(0, [f"k{n}" for n in range(100)], metas(100), present)
        return path, writer.finish(1)


@pytest.fixture
def catalog(made: tuple[Path, CatalogId]) -> Iterator[SqliteCatalog]:
    opened = SqliteCatalog(str(made[0]), 1, made[1], rows=100)
    yield opened
    opened.close()


def rows(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int64)


class TestAsking:
    def test_keys_and_rows(self, catalog: SqliteCatalog) -> None:
        assert catalog.row("k17") == 17
        assert catalog.keys(rows(5, 3, 5)) == ["k5", "k3", "k5"]
        assert catalog.keys(rows()) == []
        for wrong in ("k100", "", "K17", "\ud800", 17, None):
            with pytest.raises(KeyError):
                catalog.row(wrong)  # type: ignore[arg-type]

    def test_metadata_is_what_was_given(self, catalog: SqliteCatalog) -> None:
        assert catalog.meta(np.arange(100)) == metas(100)
        assert catalog.meta(rows(99, 0, 99, 50)) == [metas(100)[n] for n in (99, 0, 99, 50)]

    @pytest.mark.parametrize(
        ("clause", "parameters", "expected"),
        [
            ("length > ?", [96], [97, 98, 99]),
            ("length > ? AND forecast IS NOT NULL", [70], [80, 90]),
            ("score BETWEEN 1 AND 1.5", [], [4, 5, 6]),
            ("lang = ? AND good AND length < 20", ["en"], [3, 9, 15]),
            ("json_extract(meta, '$.other.deep') = 170", [], [17]),
            ("meta ->> '$.tags[1].a' = 8", [], [8]),
            ("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = 33)", [], [33]),
            ("key IN ('k1', 'k2', ''');--')", [], [1, 2]),
            ("length IN (SELECT value FROM json_each(?))", [json.dumps([4, 7, 1000])], [4, 7]),
            ("row = (SELECT max(length) FROM records)", [], [99]),
            ("text IS NULL", [], []),
            ('"length" = 3', [], [3]),
            ("[length] = 3 or `length` = 4", [], [3, 4]),
            ("length = ?", [np.int32(5)], [5]),
            ("score = ?", [np.float64(0.25)], [1]),
            ("1", [], list(range(100))),
            ("length = 1 OR\n length = 2", [], [1, 2]),
        ],
    )
    def test_where(
        self, catalog: SqliteCatalog, clause: str, parameters: list[Any], expected: list[int]
    ) -> None:
        found = catalog.where(clause, parameters)
        assert found.dtype == np.int64
        assert found.tolist() == expected
        assert catalog.where(clause, parameters, limit=2).tolist() == expected[:2]

    def test_limits(self, catalog: SqliteCatalog) -> None:
        assert catalog.where("length >= 0", limit=0).tolist() == []
        assert catalog.where("length >= 0", limit=10**30).tolist() == list(range(100))
        assert catalog.where("score >= 0", limit=3).tolist() == [0, 1, 2]  # by an index or not
        for wrong in (-1, 1.5, "1; DROP TABLE records"):
            with pytest.raises(FormatError, match="limit must be"):
                catalog.where("1", limit=wrong)  # type: ignore[arg-type]

    def test_an_error_says_what_names_there_are(self, catalog: SqliteCatalog) -> None:
        with pytest.raises(FormatError, match=r"no such column: lenght.*length, score") as caught:
            catalog.where("lenght > 5")
        assert "json_extract" in str(caught.value)
        with pytest.raises(FormatError, match="no column"):
            catalog.where('"lenght" > 5')  # SQLite would compare the word with 5
        with pytest.raises(FormatError, match="bindings"):
            catalog.where("length > ?", [])
        with pytest.raises(FormatError, match="syntax error"):
            catalog.where("length >")
        with pytest.raises(FormatError, match="JSON"):
            catalog.where("json_extract(lang, '$.a')")

    def test_parameters_of_no_type_of_sql(self, catalog: SqliteCatalog) -> None:
        for wrong in ([[1, 2]], [{}], [1 << 64], [object()], ["\ud800"], "abc", 5):
            with pytest.raises(FormatError, match="parameter"):
                catalog.where("length = ?", wrong)  # type: ignore[arg-type]
        with pytest.raises(FormatError, match="json_each"):
            catalog.where("length IN (?)", [[1, 2]])


INJECTIONS = [
    "1) UNION SELECT 5 --",
    "1) UNION SELECT row FROM records WHERE (1",
    "1); DROP TABLE records; --",
    "1; DROP TABLE records",
    "1); ATTACH DATABASE '/tmp/x' AS x; --",
    "1) OR (1",
    "1 /* */",
    "1 --",
    "'a",
    '"length',
    "(1",
    "1\0",
    "",
    "  ",
    "x" * 200_000,
    "row IN (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n)",
    "row IN (SELECT rootpage FROM sqlite_master)",
    "row IN (SELECT cid FROM pragma_table_info('records'))",
    "load_extension('/tmp/x.so')",
    "readfile('/etc/passwd')",
    "writefile('/tmp/x', 'y')",
    "randomblob(10) IS NULL",
    "random() > 0",
    "zeroblob(1000000000)",
    "sqlite_version() = 1",
    "fts3_tokenizer('simple')",
    "(INSERT INTO records VALUES (1))",
    "(DELETE FROM records)",
    "(PRAGMA table_info(records))",
    "RAISE(ABORT, 'x')",
    "EXISTS (SELECT 1 FROM other)",
    "key MATCH 'x'",
    "1 ORDER BY 1",
    "1 LIMIT 1",
    "1 GROUP BY 1",
    "row, key",
    "SELECT 1",
]


WORDS = [*"()'\"`[];a1=\n", " OR ", " UNION SELECT 1 ", "--", "/*", "*/", "''", "(1)"]


class TestRefusing:
    @pytest.mark.parametrize("clause", INJECTIONS)
    def test_what_is_no_question(self, catalog: SqliteCatalog, clause: str) -> None:
        before = Path(catalog.path).read_bytes()
        with pytest.raises(FormatError):
            catalog.where(clause)
        assert Path(catalog.path).read_bytes() == before
        assert catalog.where("length = 5").tolist() == [5]  # and the catalog is well

    @given(st.text(alphabet="()'\"`[];-/*\0 a1=?,\n", max_size=30))
    def test_any_text_ends_in_an_answer_or_in_our_error(
        self, made: tuple[Path, CatalogId], clause: str
    ) -> None:
        catalog = SqliteCatalog(str(made[0]), 1, made[1], rows=100)
        try:
            found = catalog.where(clause, [1] * clause.count("?"))
            assert found.tolist() == sorted(set(found.tolist()))
        except FormatError:
            pass
        finally:
            catalog.close()

    @given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
    def test_what_is_let_through_cannot_leave_its_parentheses(self, clause: str) -> None:
        try:
            checked_clause(clause, ["a"])
        except FormatError:
            return
        connection = sqlite3.connect(":memory:")
        try:
            connection.execute("CREATE TABLE t (a)")
            connection.execute("INSERT INTO t VALUES (1)")
            question = f"SELECT a FROM t WHERE 0 AND ({clause}\n)"
            # Several statements would be a Warning in some versions, and a ProgrammingError in
            # others, which is none of these.
            with suppress(sqlite3.OperationalError):
                assert connection.execute(question).fetchall() == []
        finally:
            connection.close()


class TestSharing:
    def test_threads(self, catalog: SqliteCatalog) -> None:
        wrong: list[int] = []

        def ask(seed: int) -> None:
            wrong.extend(
                n
                for n in range(seed, 100, 4)
                if catalog.row(f"k{n}") != n or catalog.where("length = ?", [n]).tolist() != [n]
            )

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_a_forked_child_asks_by_itself(self, catalog: SqliteCatalog) -> None:
        assert catalog.row("k1") == 1
        with catalog._session()._lock:  # as if a thread of the parent were asking
            pid = os.fork()
            if pid == 0:
                good = catalog.where("length > 97").tolist() == [98, 99]
                os._exit(0 if good else 1)
            assert os.waitpid(pid, 0)[1] == 0
        assert catalog.row("k2") == 2

    def test_it_pickles_as_what_it_is(self, catalog: SqliteCatalog) -> None:
        data = pickle.dumps(catalog)
        assert len(data) < 1000
        again = pickle.loads(data)
        assert again.where("length = 7").tolist() == [7]
        again.close()

    def test_a_spawned_child_gets_it_pickled(self, catalog: SqliteCatalog) -> None:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(ask_child, (catalog,)) == [98, 99]
            pool.close()
            pool.join()

    def test_closed(self, catalog: SqliteCatalog) -> None:
        assert catalog.row("k1") == 1
        catalog.close()
        catalog.close()
        with pytest.raises(StorageError, match="closed"):
            catalog.row("k1")


def ask_child(catalog: SqliteCatalog) -> list[int]:
    found = catalog.where("length > 97").tolist()
    catalog.close()
    return [int(row) for row in found]


class TestDamage:
    def test_every_flipped_byte_is_seen(self, tmp_path: Path) -> None:
        with writing(tmp_path) as writer:
            writer.add(0, ["a"], [{"length": 1}], None)
            identity = writer.finish(1)
        path = tmp_path / catalog_name(1, 1)
        whole = path.read_bytes()
        for place in range(0, len(whole), 97):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            catalog = SqliteCatalog(str(tmp_path), 1, identity, rows=1)
            with pytest.raises(CorruptRecord, match=path.name):
                catalog.row("a")
            catalog.close()
        for size in (0, 1, 100, len(whole) - 1, len(whole) + 1):
            path.write_bytes((whole + b"\0")[:size])
            catalog = SqliteCatalog(str(tmp_path), 1, identity, rows=1)
            with pytest.raises(CorruptRecord):
                catalog.where("1")
            catalog.close()
        path.unlink()
        catalog = SqliteCatalog(str(tmp_path), 1, identity, rows=1)
        with pytest.raises(StorageError, match="without it"):
            catalog.meta(rows(0))
        catalog.close()

    @given(data=st.data())
    def test_damage_with_a_right_checksum_ends_in_our_errors(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        tmp_path = tmp_path_factory.mktemp("damage")
        with writing(tmp_path) as writer:
            writer.add(0, [f"k{n}" for n in range(20)], metas(20), None)
            writer.finish(1)
        path = tmp_path / catalog_name(1, 1)
        whole = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 20))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(whole)
        identity = CatalogId(1, len(whole), google_crc32c.value(bytes(whole)), DECLARED)
        catalog = SqliteCatalog(str(tmp_path), 1, identity, rows=20)
        try:
            for ask in (
                lambda: catalog.row("k5"),
                lambda: catalog.where("length > 3"),
                lambda: catalog.where("json_extract(meta, '$.other.deep') > 3"),
                lambda: catalog.meta(np.arange(20)),
                lambda: catalog.keys(np.arange(20)),
            ):
                try:
                    answer: Any = ask()
                except (SplitpipeError, KeyError) as error:
                    answer = error
                assert answer is not None
        finally:
            catalog.close()

    def test_rows_that_the_dataset_does_not_have(self, made: tuple[Path, CatalogId]) -> None:
        catalog = SqliteCatalog(str(made[0]), 1, made[1], rows=50)
        with pytest.raises(CorruptRecord, match="does not have"):
            catalog.where("length > 90")
        catalog.close()
        catalog = SqliteCatalog(str(made[0]), 1, made[1], rows=100, deleted=rows(5))
        with pytest.raises(CorruptRecord, match="does not have"):
            catalog.row("k5")
        catalog.close()


class TestWriting:
    def test_deleted_rows_leave_positions(self, tmp_path: Path) -> None:
        with writing(tmp_path) as writer:
            writer.add(0, [f"k{n}" for n in range(10)], metas(10), None)
            writer.delete([0, 4, 5])
            identity = writer.finish(1)
        catalog = SqliteCatalog(str(tmp_path), 1, identity, rows=10, deleted=rows(0, 4, 5))
        assert catalog.where("length > 2").tolist() == [2, 3, 4, 5, 6]
        assert catalog.keys(np.arange(7)) == ["k1", "k2", "k3", "k6", "k7", "k8", "k9"]
        assert catalog.row("k6") == 3
        with pytest.raises(KeyError):
            catalog.row("k4")
        catalog.close()

    def test_sessions_follow_each_other(self, tmp_path: Path) -> None:
        with writing(tmp_path, metadata={}) as writer:
            writer.add(0, ["a", None], [{"length": 1}, None], None)
            first = writer.finish(1)
        with writing(tmp_path, first, metadata={}, columns=["text", "forecast"]) as writer:
            writer.add(2, ["b"], None, {"text": [False]})
            writer.add_column("late")
            writer.set_present([0, 2], "late", [True, False])
            writer.set_meta(1, {"x": 1})
            second = writer.finish(2)
            writer.add(3, None, None, None, count=2)
            third = writer.finish(3)
        for identity, count, late in ((first, 2, None), (second, 3, [0]), (third, 5, [0, 3, 4])):
            catalog = SqliteCatalog(str(tmp_path), 1, identity, rows=count)
            assert len(catalog.where("1")) == count
            if late is not None:
                assert catalog.where("late IS NOT NULL").tolist() == late
                assert catalog.meta(rows(1)) == [{"x": 1}]
            catalog.close()
        assert not (tmp_path / work_name(1)).exists()

    def test_metadata_that_is_declared_later_is_filled_in(self, tmp_path: Path) -> None:
        with writing(tmp_path, metadata={"lang": "str"}) as writer:
            writer.add(0, None, metas(20), None)
            first = writer.finish(1)
        with writing(tmp_path, first, metadata={"length": "int64"}) as writer:
            second = writer.finish(2)
        assert second.metadata == {"lang": "str", "length": "int64"}
        catalog = SqliteCatalog(str(tmp_path), 1, second, rows=20)
        assert catalog.where("length > 17 AND lang IS NOT NULL").tolist() == [18, 19]
        catalog.close()
        with (
            pytest.raises(FormatError, match="declared as int64 and is"),
            writing(tmp_path, second, metadata={"other": "int64"}),
        ):
            pass
        with (
            pytest.raises(FormatError, match="was declared as 'str' before"),
            writing(tmp_path, second, metadata={"lang": "int64"}),
        ):
            pass

    @pytest.mark.parametrize("few", [0, 10**9])
    def test_duplicate_keys(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
    ) -> None:
        monkeypatch.setattr(catalog_writer, "_FEW", few)
        with writing(tmp_path, metadata={}) as writer:
            writer.add(0, ["a", "b"], None, None)
            with pytest.raises(FormatError, match="'c' is there twice in the batch"):
                writer.add(2, ["c", "d", "c"], None, None)
            with pytest.raises(FormatError, match=r"'a' is there already \(row 0\)"):
                writer.add(2, ["c", "a"], None, None)
            writer.add(2, ["c", None, None], None, None)
            with pytest.raises(FormatError, match=r"'c' is there already \(row 2\)"):
                writer.add(5, ["c"], None, None)
            writer.delete([0])
            writer.add(5, ["a"], None, None)
            identity = writer.finish(1)
        with writing(tmp_path, identity, metadata={}) as writer:
            for key in ("a", "b", "c"):
                with pytest.raises(FormatError, match="is there already"):
                    writer.add(6, [key], None, None)
            writer.add(6, ["e"], None, None)
            assert writer.row("e") == 6
            assert writer.row("a") == 5
            with pytest.raises(KeyError):
                writer.row("f")

    @given(
        batches=st.lists(
            st.tuples(
                st.lists(st.none() | st.integers(0, 60).map(str), min_size=1, max_size=8),
                st.sampled_from(["add", "row", "finish", "delete"]),
            ),
            max_size=25,
        ),
        few=st.sampled_from([0, 3, 10**9]),
        pending=st.sampled_from([1, 5, 10**9]),
    )
    def test_it_is_a_dict(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        batches: list[tuple[list[str | None], str]],
        few: int,
        pending: int,
    ) -> None:
        model: dict[str, int] = {}
        row = number = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(catalog_writer, "_FEW", few)
            patch.setattr(catalog_writer, "_PENDING", pending)
            with writing(tmp_path_factory.mktemp("dict"), metadata={}) as writer:
                for keys, then in batches:
                    given = [key for key in keys if key is not None]
                    if len(set(given)) < len(given) or model.keys() & set(given):
                        with pytest.raises(FormatError):
                            writer.add(row, keys, None, None)
                    else:
                        writer.add(row, keys, None, None)
                        model.update({k: row + n for n, k in enumerate(keys) if k is not None})
                        row += len(keys)
                    if then == "row":
                        assert all(writer.row(key) == at for key, at in model.items())
                    elif then == "finish":
                        number += 1
                        writer.finish(number)
                    elif then == "delete" and model:
                        writer.delete([model.pop(min(model))])
                assert all(writer.row(key) == at for key, at in model.items())

    @pytest.mark.parametrize(
        ("meta", "message"),
        [
            ({"length": 1.0}, "'length' of row 0 was declared as int64 and is 1.0"),
            ({"length": True}, "declared as int64"),
            ({"length": 1 << 63}, "declared as int64"),
            ({"score": "1"}, "declared as float64"),
            ({"score": math.nan}, "'score' is nan"),
            ({"lang": 5}, "declared as str"),
            ({"good": 1}, "declared as bool"),
            ({"x": object()}, "'x' is <object"),
            ({"x": float("inf")}, "'x' is inf"),
            ({"x": {"y": np.zeros(2)}}, "'x' is"),
            ({5: 1}, "the name 5"),
            ({"x": "\ud800"}, "surrogate"),
            ([1], "not a dict"),
        ],
    )
    def test_metadata_that_does_not_fit(self, tmp_path: Path, meta: Any, message: str) -> None:
        with writing(tmp_path) as writer:
            with pytest.raises(FormatError, match=message):
                writer.add(0, ["a"], [meta], None)
            writer.add(0, ["a"], [{"length": np.int16(3), "score": 2, "lang": None}], None)
            assert writer.row("a") == 0

    def test_keys_that_are_none(self, tmp_path: Path) -> None:
        with writing(tmp_path) as writer:
            for wrong in (5, b"a", "\udc00"):
                with pytest.raises(FormatError, match="key"):
                    writer.add(0, [wrong], None, None)
            writer.add(0, ["", "é\0x", "A", "a"], None, None)
            assert [writer.row(key) for key in ("", "é\0x", "A", "a")] == [0, 1, 2, 3]

    def test_counts_must_agree(self, tmp_path: Path) -> None:
        with writing(tmp_path) as writer:
            for arguments in (
                (["a"], [None, None], None),
                (None, [None], {"text": [True, False]}),
                (None, None, None),
            ):
                with pytest.raises(FormatError, match="equally many"):
                    writer.add(0, *arguments)
            with pytest.raises(FormatError, match="no column 'nope'"):
                writer.add(0, ["a"], None, {"nope": [True]})

    def test_names_that_cannot_be(self) -> None:
        for metadata, columns, message in (
            ({"a": "int32"}, [], "cannot be declared as 'int32'"),
            ({"a b": "str"}, [], "cannot name"),
            ({"a": "str"}, ["A"], "'A' has the name of"),
            ({}, ["text", "Text"], "'Text' has the name of"),
            ({}, ["row"], "catalog's own"),
            ({"Meta": "str"}, [], "catalog's own"),
            ({}, [f"c{n}" for n in range(2000)], "more than the 2000"),
        ):
            with pytest.raises(FormatError, match=message):
                check_names(metadata, columns)

    def test_what_was_not_finished_is_gone(self, tmp_path: Path) -> None:
        with writing(tmp_path) as writer:
            writer.add(0, ["a"], None, None)
            identity = writer.finish(1)
        left = CatalogWriter(str(tmp_path), 1, identity, metadata={}, columns=["text"])
        left.add(1, ["b"], None, None)
        assert left.row("b") == 1
        assert sorted(os.listdir(tmp_path)) == [catalog_name(1, 1), work_name(1)]
        # As after the first session was killed.
        with writing(tmp_path, identity) as writer, pytest.raises(KeyError):
            writer.row("b")
        left.close()
        left.close()
        assert os.listdir(tmp_path) == [catalog_name(1, 1)]
        with pytest.raises(StorageError, match="closed"):
            left.add(1, ["b"], None, None)

    def test_a_full_disk_takes_nothing_along(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(catalog_writer, "_PENDING", 4)
        with writing(tmp_path, metadata={}) as writer:
            writer.add(0, ["a", "b"], None, None)
            writer.row("a")
            connection = writer._work._connection
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
            big = [{"x": "y" * 5000}] * 4
            writer.add(2, [f"c{n}" for n in range(4)], big, None)
            with pytest.raises(StorageError, match="make room"):
                writer.add(6, ["d"], None, None)
            connection.execute("PRAGMA max_page_count = 1000000").fetchall()
            writer.add(6, ["d"], None, None)
            identity = writer.finish(1)
        catalog = SqliteCatalog(str(tmp_path), 1, identity, rows=7)
        assert catalog.keys(np.arange(7)) == ["a", "b", "c0", "c1", "c2", "c3", "d"]
        catalog.close()

    @pytest.mark.parametrize("failing", ["fdatasync", "replace"])
    def test_finishing_can_be_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        with writing(tmp_path, metadata={}) as writer:
            writer.add(0, ["a"], None, None)

            def fail(*_: Any) -> None:
                raise OSError(5, "Input/output error")

            with monkeypatch.context() as patch:
                patch.setattr(os, failing, fail)
                with pytest.raises(StorageError):
                    writer.finish(1)
            writer.add(1, ["b"], None, None)
            identity = writer.finish(1)
        catalog = SqliteCatalog(str(tmp_path), 1, identity, rows=2)
        assert catalog.keys(np.arange(2)) == ["a", "b"]
        catalog.close()

    def test_a_damaged_catalog_is_not_gone_on_with(self, tmp_path: Path) -> None:
        with writing(tmp_path) as writer:
            writer.add(0, ["a"], None, None)
            identity = writer.finish(1)
        path = tmp_path / catalog_name(1, 1)
        whole = bytearray(path.read_bytes())
        whole[5000] ^= 4
        path.write_bytes(whole)
        with pytest.raises(FormatError, match="restore it"), writing(tmp_path, identity):
            pass
        assert os.listdir(tmp_path) == [path.name]


class TestValues:
    @given(
        st.dictionaries(
            st.text(st.characters(codec="utf-8")),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(st.characters(codec="utf-8")),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
                ),
            ),
            max_size=5,
        )
    )
    def test_metadata_comes_back(self, meta: dict[str, Any]) -> None:
        assert decode_meta(encode_meta(meta, 0)) == meta

    @given(
        st.lists(
            st.none()
            | st.dictionaries(
                st.text(st.characters(codec="utf-8"), max_size=3),
                st.integers() | st.text(st.characters(codec="utf-8"), max_size=5),
            ),
            max_size=6,
        )
    )
    def test_many_are_encoded_as_each_is(self, metas: list[dict[str, Any] | None]) -> None:
        assert encode_metas(metas, 0) == [encode_meta(meta, 0) for meta in metas]

    def test_stored_metadata_that_is_no_object(self) -> None:
        for text in ("[1]", "{", "5", ""):
            with pytest.raises(CorruptRecord):
                decode_meta(text)

    def test_declared_values(self) -> None:
        assert declared_value("a", "float64", 3, 0) == 3.0
        assert declared_value("a", "bool", np.True_, 0) == 1
        assert declared_value("a", "json", {"b": [1]}, 0) == '{"b":[1]}'
        assert declared_value("a", "str", None, 0) is None
        assert bindable((np.str_("x"), 1.5, b"y")) == ["x", 1.5, b"y"]

    @pytest.mark.parametrize(
        "change",
        [
            {"number": -1},
            {"size": "5"},
            {"crc": "xyz"},
            {"crc": 5},
            {"metadata": []},
            {"metadata": {"a": "int31"}},
            {"metadata": {"a;b": "str"}},
        ],
    )
    def test_an_identity_is_checked(self, change: dict[str, Any]) -> None:
        good = CatalogId(3, 4096, 0xABC, {"n": "int64"}).to_json()
        assert CatalogId.from_json(json.loads(json.dumps(good))).crc == 0xABC
        with pytest.raises(ValueError, match=r"catalog|declared|name"):
            CatalogId.from_json({**good, **change})
