"""From synthefy-dataset-utils: its sharded folders read where they lie.

The folder is written here as ``ShardedDatasetWriter`` writes it: a SQLite index and tar shards of
``.npy`` files, one folder a field. ``query_ids``, ``get_sample`` and ``get_many`` become keys,
``where`` and batches; nothing is converted, and nothing is ever unpickled.

Run it: ``python examples/from_synthefy.py``
"""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

import splitpipe as sp

FIELDS = ("history", "target", "forecast")


def sample(n: int) -> dict[str, npt.NDArray[np.float64]]:
    """The arrays of a sample; not every one has a forecast."""
    arrays = {"history": np.arange(n, n + 100.0), "target": np.arange(50.0) * n}
    return arrays if n % 4 else {**arrays, "forecast": np.full(50, float(n))}


def write_folder(root: Path, samples: int, per_shard: int = 40) -> None:
    """What the original's ``add_fields`` and ``add_sample`` leave behind."""
    root.mkdir()
    database = sqlite3.connect(root / "index.sqlite")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE samples (id TEXT PRIMARY KEY, meta_json TEXT)")
    database.execute("CREATE TABLE fields (name TEXT PRIMARY KEY, num_shards INT, base_dir TEXT)")
    keys = [f"sample_{n:012d}" for n in range(samples)]
    metas = [json.dumps({"length": 100 + n, "source": "synthetic"}) for n in range(samples)]
    database.executemany("INSERT INTO samples VALUES (?, ?)", zip(keys, metas, strict=True))
    for field in FIELDS:
        folder = root / f"{field}_shards"
        folder.mkdir()
        for column in ("offset", "shard"):
            database.execute(f"ALTER TABLE samples ADD COLUMN {field}_{column} INTEGER")
        database.execute("INSERT INTO fields VALUES (?, 0, ?)", (field, str(folder)))
        there = [n for n in range(samples) if field in sample(n)]
        for shard, first in enumerate(range(0, len(there), per_shard)):
            with tarfile.open(folder / f"shard_{shard:04d}.tar", "w") as archive:
                for n in there[first : first + per_shard]:
                    data = io.BytesIO()
                    np.save(data, sample(n)[field])
                    info = tarfile.TarInfo(f"{keys[n]}.npy")
                    info.size = data.tell()
                    data.seek(0)
                    archive.addfile(info, data)
                    database.execute(
                        f"UPDATE samples SET {field}_offset = 0, {field}_shard = ? WHERE id = ?",
                        (shard, keys[n]),
                    )
    database.commit()
    database.close()


def main() -> None:
    """Open, ask, read; then batches for training."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "my_dataset")
        write_folder(root, samples=200)

        # Was: reader = ShardedDatasetReader(root); len(reader); reader.list_fields()
        ds = sp.open_dataset(root)
        print(f"{len(ds)} samples of {', '.join(ds.schema)}")

        # Was: arrays, metadata = reader.get_sample("sample_000000000008")
        record = ds["sample_000000000008"]
        print(f"forecast {record['forecast'][0]:.0f}, meta {ds.meta('sample_000000000008')}")

        # Was: reader.query_ids("json_extract(meta_json, '$.length') > ? AND ...", params=(256,))
        clause = "json_extract(meta_json, '$.length') > ? AND forecast_offset IS NOT NULL"
        long = ds.where(clause, [256])
        print(f"{len(long)} long samples with a forecast, the first is {long.keys([0])[0]}")

        # Was: reader.get_many(ids, fields=["history", "target"])
        batch = ds.get_batch(range(128), columns=["history", "target"])
        print(f"history {batch['history'].shape}, target {batch['target'].shape}")

        # An epoch over a query, shuffled, in batches.
        pipe = sp.Pipeline(long.select(["history"]), shuffle="global", seed=0).batch(5)
        with pipe.loader() as loader:
            print(f"batches: {[batch['history'].shape for batch in loader]}")


if __name__ == "__main__":
    main()
