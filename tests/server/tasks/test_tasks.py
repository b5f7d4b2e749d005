"""Tasks in processes of their own: done, failed, aborted, gone on with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.errors import Conflict, InvalidRequest, NotFound
from splitpipe.server.catalog import Datasets, open_snapshot
from splitpipe.server.modules.registry import Modules
from splitpipe.server.state import Database
from splitpipe.server.tasks import Tasks

LONG_S = 60.0
pytestmark = pytest.mark.deadline(120)


def make(catalog: Datasets, root: Path, count: int = 100, uid: str | None = None) -> None:
    with sp.DatasetWriter(root / "data" / "m") as writer:
        writer.write_many({"n": n, "text": "x" * (n % 7)} for n in range(count))
    catalog.create("d", uid_column=uid)
    catalog.add_column_set("d", "main", location="m", format="bins")


def rows_of(catalog: Datasets) -> list[Any]:
    with open_snapshot(catalog.pin("d")) as opened:
        return list(opened)


def done(tasks: Tasks, kind: str, **params: Any) -> dict[str, Any]:
    told = tasks.wait(tasks.start(kind, {"dataset": "d", **params})["id"], LONG_S)
    assert told["status"] == "done", told
    return told


def failed(tasks: Tasks, kind: str, **params: Any) -> str:
    told = tasks.wait(tasks.start(kind, {"dataset": "d", **params})["id"], LONG_S)
    assert told["status"] == "failed", told
    return str(told["error"])


class TestKinds:
    def test_statistics(self, tasks: Tasks, catalog: Datasets, root: Path) -> None:
        make(catalog, root)
        assert catalog.statistics("d") is None
        told = done(tasks, "statistics")
        assert told["progress"] == {"done": 100, "total": 100, "message": ""}
        found = catalog.statistics("d")
        assert found is not None
        assert found["current"] is True
        n, text = found["columns"]
        assert (n["min"], n["max"], n["mean"], n["distinct"]["count"]) == (0, 99, 49.5, 100)
        assert text["distinct"] == {"count": 7, "exact": True}
        assert sum(n["histogram"]["counts"]) == 100
        with sp.DatasetWriter(root / "data" / "m", append=True) as writer:
            writer.write({"n": 100, "text": ""})
        found = catalog.statistics("d")
        assert found is not None
        assert found["current"] is False

    def test_sync(self, tasks: Tasks, catalog: Datasets, root: Path) -> None:
        (root / "data" / "c").mkdir()
        (root / "data" / "c" / "a.csv").write_text("n\n1\n")
        catalog.create("d")
        catalog.add_column_set("d", "main", location="c", format="csv")
        (root / "data" / "c" / "b.csv").write_text("n\n2\n3\n")
        told = done(tasks, "sync", column_set="main")
        assert told["result"]["new"] == ["b.csv"]
        assert catalog.column_set("d", "main")["rows"] == 3
        (root / "data" / "c" / "c.csv").write_text("m\n2\n3\n")
        assert "c.csv" in failed(tasks, "sync", column_set="main")
        assert [row["n"] for row in rows_of(catalog)] == [1, 2, 3]

    def test_check(self, tasks: Tasks, catalog: Datasets, root: Path) -> None:
        make(catalog, root)
        assert done(tasks, "check")["result"] == {"records": 100, "unreadable": 0, "problems": []}
        bad = max(
            (p for p in (root / "data" / "m").iterdir() if p.suffix == ".bin"),
            key=lambda path: path.stat().st_size,
        )
        data = bytearray(bad.read_bytes())
        data[-1] ^= 1
        bad.write_bytes(data)
        result = done(tasks, "check")["result"]
        assert result["unreadable"] >= 1
        assert "CorruptRecord" in result["problems"][0]["error"]


class TestPreprocess:
    def test_by_row(self, tasks: Tasks, catalog: Datasets, root: Path) -> None:
        make(catalog, root)
        told = done(
            tasks,
            "preprocess",
            column_set="lengths",
            filters=["even"],
            preprocessors=[{"name": "length", "params": {"times": 2}}],
            batch_size=8,
        )
        assert told["result"] == {
            "records": 100,
            "written": 100,
            "column_set": "lengths",
            "rows": 100,
        }
        rows = rows_of(catalog)
        assert rows[4] == {"n": 4, "text": "xxxx", "length": 8}
        assert [row["length"] for row in rows] == [
            None if n % 2 else 2 * (n % 7) for n in range(100)
        ]
        assert catalog.column_set("d", "lengths")["uploaded"] is True
        (column,) = catalog.column_set("d", "lengths")["columns"]
        assert column["description"] == "int32"

    def test_by_uid(self, tasks: Tasks, catalog: Datasets, root: Path) -> None:
        make(catalog, root, uid="n")
        told = done(
            tasks,
            "preprocess",
            column_set="lengths",
            filters=["even"],
            preprocessors=["length"],
            columns=["text", "n"],
            workers=2,
        )
        assert told["result"]["written"] == 50
        assert [row["length"] for row in rows_of(catalog)] == [
            None if n % 2 else n % 7 for n in range(100)
        ]

    def test_what_a_module_does_wrong_is_told(
        self, tasks: Tasks, catalog: Datasets, root: Path
    ) -> None:
        make(catalog, root)
        made = ("preprocess",)
        breaks = [{"name": "breaks", "params": {"at": 70}}]
        assert "no 70 here" in failed(tasks, *made, column_set="a", preprocessors=breaks)
        assert "31 values" in failed(tasks, *made, column_set="a", preprocessors=["fewer"])
        assert "status 3" in failed(tasks, *made, column_set="a", preprocessors=["dies"])
        assert [one["name"] for one in catalog.get("d")["column_sets"]] == ["main"]
        assert not [p for p in (root / "data").rglob("*") if p.is_file() and "a-" in str(p.parent)]
        told = done(
            tasks, *made, column_set="b", preprocessors=breaks, on_error="skip", batch_size=10
        )
        assert told["result"]["written"] == 100
        assert [row["double"] for row in rows_of(catalog)] == [
            None if 70 <= n < 80 else 2 * n for n in range(100)
        ]

    def test_what_a_module_prints_is_no_message(
        self, tasks: Tasks, catalog: Datasets, root: Path
    ) -> None:
        make(catalog, root)
        told = done(tasks, "preprocess", column_set="a", preprocessors=["prints"])
        assert told["result"]["records"] == 100

    @pytest.mark.parametrize(
        ("params", "said"),
        [
            ({}, "column_set"),
            ({"column_set": "a"}, "preprocessors"),
            ({"column_set": "../a", "preprocessors": ["length"]}, "no name"),
            ({"column_set": "a", "preprocessors": [3]}, "list of modules"),
            ({"column_set": "a", "preprocessors": ["length"], "batch_size": 0}, "batch_size"),
            ({"column_set": "a", "preprocessors": ["length"], "workers": True}, "workers"),
            ({"column_set": "a", "preprocessors": ["length"], "outputs": ["n"]}, "already"),
            ({"column_set": "a", "preprocessors": ["length"], "more": 1}, "'more'"),
        ],
    )
    def test_what_cannot_be(
        self, tasks: Tasks, catalog: Datasets, root: Path, params: dict[str, Any], said: str
    ) -> None:
        make(catalog, root)
        with pytest.raises(InvalidRequest, match=said):
            tasks.start("preprocess", {"dataset": "d", **params})

    def test_what_is_not_there(self, tasks: Tasks, catalog: Datasets, root: Path) -> None:
        make(catalog, root)
        with pytest.raises(NotFound):
            tasks.start("preprocess", {"dataset": "d", "column_set": "a", "preprocessors": ["no"]})
        with pytest.raises(Conflict):
            tasks.start(
                "preprocess", {"dataset": "d", "column_set": "main", "preprocessors": ["length"]}
            )
        with pytest.raises(NotFound):
            tasks.start("statistics", {"dataset": "e"})
        with pytest.raises(InvalidRequest):
            tasks.start("dance", {})
        with pytest.raises(NotFound):
            tasks.get("0")


class TestLives:
    def waiting(self, tasks: Tasks, flag: Path) -> str:
        """A task that is at record 50 and waits there."""
        module = {"name": "waits", "params": {"flag": str(flag)}}
        params = {"dataset": "d", "column_set": "a", "preprocessors": [module], "batch_size": 10}
        return str(tasks.start("preprocess", params)["id"])

    def test_aborted_and_nothing_is_left(
        self, tasks: Tasks, catalog: Datasets, root: Path, tmp_path: Path
    ) -> None:
        make(catalog, root)
        before = sorted(os.listdir(root / "data"))
        task = self.waiting(tasks, tmp_path / "flag")
        child = tasks._known[task]
        assert tasks.abort(task)["status"] in ("aborting", "aborted")
        assert tasks.wait(task, LONG_S)["status"] == "aborted"
        assert child.child is None
        assert tasks.abort(task)["status"] == "aborted"
        left = [p for p in (root / "data").rglob("*") if p.is_file() and "a-" in str(p.parent)]
        assert (left, sorted(os.listdir(root / "data"))[: len(before)]) == ([], before)

    def test_those_that_wait_for_a_place(
        self, database: Database, catalog: Datasets, modules: Modules, root: Path, tmp_path: Path
    ) -> None:
        make(catalog, root)
        tasks = Tasks(database, catalog, modules=modules, most=1)
        try:
            first = self.waiting(tasks, tmp_path / "flag")
            second = tasks.start("statistics", {"dataset": "d"})["id"]
            third = tasks.start("statistics", {"dataset": "d"})["id"]
            assert tasks.get(second)["status"] == "queued"
            tasks.abort(third)
            assert tasks.wait(third, LONG_S)["status"] == "aborted"
            (tmp_path / "flag").touch()
            assert tasks.wait(second, LONG_S)["status"] == "done"
            assert tasks.wait(first, LONG_S)["status"] == "done"
            assert [one["id"] for one in tasks.list()] == [third, second, first]
        finally:
            tasks.close()

    def test_a_server_that_ends_goes_on_later(
        self, database: Database, catalog: Datasets, modules: Modules, root: Path, tmp_path: Path
    ) -> None:
        make(catalog, root)
        tasks = Tasks(database, catalog, modules=modules)
        task = self.waiting(tasks, tmp_path / "flag")
        tasks.close()
        assert tasks.get(task)["status"] in ("queued", "running")
        (tmp_path / "flag").touch()
        again = Tasks(database, catalog, modules=modules)
        try:
            again.resume()
            told = again.wait(task, LONG_S)
            assert (told["status"], told["result"]["written"]) == ("done", 100)
            assert [row["double"] for row in rows_of(catalog)] == [2 * n for n in range(100)]
        finally:
            again.close()

    def test_aside(self, tasks: Tasks, catalog: Datasets, root: Path) -> None:
        make(catalog, root)
        job = {"snapshot": catalog.pin("d")}
        assert tasks.aside("check", job, deadline_s=LONG_S)["records"] == 100
        with pytest.raises(InvalidRequest, match="snapshot"):
            tasks.aside("check", {}, deadline_s=LONG_S)
