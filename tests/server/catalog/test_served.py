"""Datasets of a real server, by its client: what happens to files while they are read."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import splitpipe as sp
from splitpipe.client import Client
from tests.server.serving import Served

pytestmark = [pytest.mark.deadline(240), pytest.mark.long]
FILES, ROWS, BATCH = 3, 64, 8


def write(folder: Path, format: str) -> None:
    folder.mkdir()
    for part in range(FILES):
        numbers = range(part * ROWS, (part + 1) * ROWS)
        if format == "csv":
            (folder / f"{part}.csv").write_text("n\n" + "".join(f"{n}\n" for n in numbers))
        else:
            pq.write_table(pa.table({"n": list(numbers)}), folder / f"{part}.parquet")


def numbers(batches: Any) -> list[int]:
    return [int(n) for batch in batches for n in batch["n"]]


def settled(client: Client, iteration: str) -> dict[str, Any]:
    """What is told of an iteration once it is done; the test's deadline ends the waiting."""
    while True:
        told = client.iterations.get(iteration)
        if told["status"] == "done":
            return dict(told["progress"])
        threading.Event().wait(0.1)


@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize("how", ["removed", "unreadable"])
def test_a_file_that_goes_bad_is_named_and_nothing_hangs(
    served: Served, tmp_path: Path, format: str, how: str
) -> None:
    folder = tmp_path / "shards"
    write(folder, format)
    bad = folder / f"1.{format}"
    with sp.connect(served.url) as client:
        client.datasets.create("d")
        client.datasets.column_sets.add("d", "shards", str(folder), format=format)
        for on_error in ("raise", "skip"):
            spec = {"dataset": "d", "batch_size": BATCH, "on_error": on_error}
            client.iterations.create(spec, id=on_error)
            client.iterations.stop(on_error)
        bad.unlink()
        if how == "unreadable":
            bad.mkdir()
        client.iterations.start("raise")
        with client.follow("raise") as loader:
            found = numbers(islice(loader, ROWS // BATCH))
            with pytest.raises(Exception, match=bad.name) as caught:
                next(loader)
        assert "'shards'" in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert found == list(range(ROWS))
        client.iterations.start("skip")
        with client.follow("skip") as loader:
            found = numbers(loader)
        assert found == [*range(ROWS), *range(2 * ROWS, 3 * ROWS)]
        told = settled(client, "skip")
        assert (told["completed"], told["failed"]) == (2 * ROWS, ROWS)


def test_a_join_a_sync_and_a_new_column_set(served: Served, tmp_path: Path) -> None:
    (served.root / "modules" / "mine.py").write_text(
        "from splitpipe.server.modules import preprocessor\n"
        "@preprocessor\n"
        "def doubled(batch):\n"
        "    '''Twice the number.'''\n"
        "    return {'twice': batch['n'] * 2}\n"
    )
    write(tmp_path / "main", "parquet")
    with sp.connect(served.url) as client:
        client.modules.reload()
        client.datasets.create("d", uid_column="n")
        client.datasets.column_sets.add("d", "main", str(tmp_path / "main"), format="parquet")
        with client.writer("d", "words", format="jsonl") as writer:
            writer.write_many({"n": n, "word": f"w{n}"} for n in range(0, FILES * ROWS, 2))
        task = client.datasets.preprocess("d", "more", preprocessors=["doubled"], batch_size=32)
        assert client.tasks.wait(task, timeout_s=120)["result"]["written"] == FILES * ROWS
        with client.iterate("d", batch_size=BATCH, shuffle="global", seed=3) as loader:
            rows = [
                (int(n), word, int(twice))
                for batch in loader
                for n, word, twice in zip(batch["n"], batch["word"], batch["twice"], strict=True)
            ]
        assert sorted(rows) == [(n, None if n % 2 else f"w{n}", 2 * n) for n in range(FILES * ROWS)]
        pq.write_table(pa.table({"n": [1000]}), tmp_path / "main" / "9.parquet")
        task = client.datasets.column_sets.sync("d", "main")
        assert client.tasks.wait(task, timeout_s=120)["result"]["new"] == ["9.parquet"]
        (words,) = client.datasets.preview("d", offset=FILES * ROWS)["rows"]
        assert words["values"] == {"n": 1000, "word": None, "twice": None}
