"""Heavier questions than a clause: a dataset as a table of DuckDB.

`Dataset.where` picks records by their keys and metadata. Groups, windows and joins are the business
of a database: `to_arrow` hands it the columns, without copying them a second time. Writes 5,000
forecasts with three columns and metadata, asks for the error by sensor, and goes back from what
DuckDB found to the records.

Needs the extra ``table`` and duckdb: ``pip install 'splitpipe[table]' duckdb``
Run it: ``python examples/duckdb_questions.py``
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import splitpipe as sp

RECORDS = 5_000
SENSORS = ("north", "east", "south")

QUESTION = """
    SELECT json_extract_string(meta, '$.sensor') AS sensor,
           count(*) AS forecasts,
           avg(abs(forecast - truth)) AS error
    FROM forecasts GROUP BY sensor ORDER BY error DESC
"""
WORST = "SELECT key FROM forecasts ORDER BY abs(forecast - truth) DESC LIMIT 3"


def write(path: Path) -> None:
    """Store forecasts of three sensors, of which one is worse than the others."""
    rng = np.random.default_rng(0)
    with sp.DatasetWriter(path, bins=8, metadata={"sensor": "str"}) as writer:
        for number in range(RECORDS):
            sensor = SENSORS[number % len(SENSORS)]
            truth = rng.normal()
            spread = 0.5 if sensor == "east" else 0.1
            record = {
                "truth": truth,
                "forecast": truth + rng.normal(scale=spread),
                "history": rng.normal(size=16).astype(np.float32),
            }
            writer.write(record, key=f"forecast-{number}", meta={"sensor": sensor})


def main() -> None:
    """Ask DuckDB, and read what it found."""
    if find_spec("duckdb") is None or find_spec("pyarrow") is None:
        print("this example needs duckdb and pyarrow: pip install 'splitpipe[table]' duckdb")
        return
    duckdb = import_module("duckdb")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "forecasts")
        with sp.open_dataset(Path(folder) / "forecasts") as ds:
            # Only the columns that the questions are about: the histories are not read.
            table = ds.to_arrow(["truth", "forecast"], metadata=True)
            with duckdb.connect() as database:
                database.register("forecasts", table)
                for sensor, count, error in database.execute(QUESTION).fetchall():
                    print(f"{sensor:6} {count} forecasts, mean error {error:.2f}")
                worst = [key for (key,) in database.execute(WORST).fetchall()]
            history = ds[worst[0]]["history"]
            print(f"worst: {', '.join(worst)}; the first has a history of {history.shape}")


if __name__ == "__main__":
    main()
