"""Containers of others, read by several threads and by a forked child at once."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import splitdataloader

from splitpipe.formats.base import Format
from splitpipe.formats.columnar import arrow, parquet
from splitpipe.formats.seeds import splitdataloader as ours
from splitpipe.formats.seeds import synthefy
from splitpipe.formats.shards import mds, tar
from splitpipe.storage.base import Records, records_of
from tests.formats import test_mds, test_synthefy, test_tar
from tests.formats.damage import open_as
from tests.formats.tables import table
from tests.formats.test_arrow import save


def _split_data(path: Path) -> Path:
    splitdataloader.write_split_data(str(path), [b"%d" % n * n for n in range(80)], splits=5)
    return path


def _parquet(path: Path) -> Path:
    pq.write_table(table(), path, row_group_size=7)
    return path


def _arrow(path: Path) -> Path:
    save(path, table())
    return path


def _mds(path: Path) -> Path:
    test_mds.write(path, test_mds.COLUMNS, test_mds.SAMPLES, compression="zstd")
    return path


def _tar(path: Path) -> Path:
    path.mkdir()
    for shard in range(3):
        files = {f"{n}.{e}": bytes([n]) * n for n in range(20) for e in ("txt", "bin")}
        test_tar.pack(path / f"{shard}.tar", files)
    return path


def _synthefy(path: Path) -> Path:
    writer = test_synthefy.Writer(path)
    test_synthefy.fill(writer, 30)
    writer.close()
    return path


CASES: dict[str, tuple[Format, Callable[[Path], Path], dict[str, Any]]] = {
    "splitdataloader": (ours.FORMAT, _split_data, {}),
    "parquet": (parquet.FORMAT, _parquet, {"cache_nbytes": 2000}),
    "arrow": (arrow.FORMAT, _arrow, {"cache_nbytes": 5000}),
    "mds": (mds.FORMAT, _mds, {}),
    "tar": (tar.FORMAT, _tar, {}),
    "synthefy": (synthefy.FORMAT, _synthefy, {}),
}


def batches(records: Records, seed: int) -> list[str]:
    """Some random batches, as text."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(12):
        rows = chance.integers(0, len(records), 9)
        found.append(repr(records_of(records.schema, records.read(rows, tuple(records.schema)))))
    return found


def _in_child(records: Records, seed: int, answer: Any) -> None:
    answer.send(batches(records, seed))


def opened(name: str, tmp_path: Path) -> Records:
    form, write, options = CASES[name]
    return open_as(form, write(tmp_path / "data"), **options)


@pytest.mark.parametrize("name", CASES)
def test_threads(name: str, tmp_path: Path) -> None:
    records = opened(name, tmp_path)
    wanted = [batches(records, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: batches(records, seed), range(4))) == wanted


@pytest.mark.parametrize("name", CASES)
def test_a_forked_child(name: str, tmp_path: Path) -> None:
    records = opened(name, tmp_path)
    wanted = batches(records, 7)
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(records, 7, send))
    child.start()
    send.close()
    assert batches(records, 7) == wanted
    with receive:
        assert receive.recv() == wanted
    child.join()


def test_questions_from_threads(tmp_path: Path) -> None:
    catalog = open_as(synthefy.FORMAT, _synthefy(tmp_path / "data")).catalog
    assert catalog is not None
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: catalog.where("rowid > ?", [n]).tolist(), range(30)))
    assert found == [list(range(n, 30)) for n in range(30)]
    assert sqlite3.threadsafety >= 1
