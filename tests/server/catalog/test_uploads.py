"""Column sets that are written by calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from splitpipe.errors import Conflict, FormatError, InvalidRequest
from splitpipe.server.catalog import Datasets, open_snapshot
from splitpipe.server.catalog.uploads import Uploads


@pytest.fixture
def uploads(catalog: Datasets) -> Iterator[Uploads]:
    made = Uploads(catalog)
    yield made
    made.close()


@pytest.mark.parametrize("format", ["bins", "csv", "jsonl", "parquet"])
class TestEveryFormat:
    def test_written_and_read(self, catalog: Datasets, uploads: Uploads, format: str) -> None:
        catalog.create("news")
        rows = [{"n": n, "x": n / 3, "text": f'a"b,{n}\nc', "good": n % 2 == 0} for n in range(10)]
        assert uploads.begin("news", "main", format=format)["next_sequence"] == 0
        with pytest.raises(Conflict, match="being written"):
            catalog.pin("news")
        assert uploads.append("news", "main", 0, rows[:4])["next_sequence"] == 1
        columns = {name: [row[name] for row in rows[4:]] for name in rows[0]}
        columns["n"] = np.array(columns["n"])
        assert uploads.append("news", "main", 1, columns) == {"next_sequence": 2, "rows": 10}
        assert uploads.append("news", "main", 0, rows[:4]) == {"next_sequence": 2, "rows": 10}
        with pytest.raises(Conflict, match="2 is wanted"):
            uploads.append("news", "main", 3, rows)
        told = uploads.finish("news", "main")
        assert (told["status"], told["rows"]) == ("ready", 10)
        assert uploads.finish("news", "main")["rows"] == 10
        with open_snapshot(catalog.pin("news")) as ds:
            assert list(ds) == rows
        catalog.delete("news", remove_data=True)
        assert [p for p in Path(catalog.locations.data).rglob("*") if p.is_file()] == []

    def test_gone_on_with_after_the_end(
        self, catalog: Datasets, uploads: Uploads, format: str
    ) -> None:
        catalog.create("news")
        uploads.begin("news", "main", format=format)
        uploads.append("news", "main", 0, [{"n": 1}, {"n": 2}])
        uploads.finish("news", "main")
        before = catalog.pin("news")
        with pytest.raises(Conflict, match="reopen it"):
            uploads.begin("news", "main", format=format)
        for _ in range(2):  # the answer was lost
            told = uploads.begin("news", "main", format=format, reopen=True)
            assert (told["next_sequence"], told["rows"]) == (1, 2)
        with pytest.raises(Conflict, match="being written"):
            catalog.pin("news")
        uploads.append("news", "main", 1, [{"n": 3}])
        with open_snapshot(before) as ds:
            assert list(ds) == [{"n": 1}, {"n": 2}]
        assert uploads.finish("news", "main")["rows"] == 3
        with open_snapshot(catalog.pin("news")) as ds:
            assert list(ds) == [{"n": 1}, {"n": 2}, {"n": 3}]

    def test_a_row_that_does_not_fit_changes_nothing(
        self, catalog: Datasets, uploads: Uploads, format: str
    ) -> None:
        catalog.create("news")
        uploads.begin("news", "main", format=format, columns={"n": "int64"})
        uploads.append("news", "main", 0, [{"n": 1}])
        with pytest.raises(FormatError):
            uploads.append("news", "main", 1, [{"n": 2}, {"n": "three"}])
        assert uploads.begin("news", "main", format=format)["next_sequence"] == 1
        uploads.append("news", "main", 1, [{"n": 2}])
        assert uploads.finish("news", "main")["rows"] == 2
        with open_snapshot(catalog.pin("news")) as ds:
            assert list(ds) == [{"n": 1}, {"n": 2}]

    def test_nothing_but_declared(self, catalog: Datasets, uploads: Uploads, format: str) -> None:
        catalog.create("news")
        uploads.begin("news", "main", format=format, columns={"n": "int64"})
        assert uploads.finish("news", "main")["rows"] == 0
        with open_snapshot(catalog.pin("news")) as ds:
            assert list(ds) == []


def test_what_cannot_be(catalog: Datasets, uploads: Uploads) -> None:
    catalog.create("news")
    uploads.begin("news", "main")
    for value in (3, [1], {"a": [1], "b": []}, {"a": 3}):
        with pytest.raises(InvalidRequest):
            uploads.append("news", "main", 0, value)
    with pytest.raises(Conflict, match="nothing was written"):
        uploads.finish("news", "main")
    with pytest.raises(InvalidRequest, match="pickled"):
        uploads.begin("news", "other", columns={"x": "pickle"})


def test_what_cannot_be_reopened(catalog: Datasets, uploads: Uploads) -> None:
    catalog.create("news")
    uploads.begin("news", "main", columns={"n": "int64"})
    uploads.append("news", "main", 0, [{"n": 1}])
    uploads.finish("news", "main")
    for other in ({"format": "csv"}, {"columns": {"n": "float64"}}):
        with pytest.raises(Conflict, match="begun as bins"):
            uploads.begin("news", "main", reopen=True, **other)  # type: ignore[arg-type]
    assert catalog.column_set("news", "main")["status"] == "ready"
