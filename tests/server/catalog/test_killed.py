"""Uploads by processes that are killed between any two calls, and in the middle of one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from splitpipe.server.catalog import Datasets, Locations, open_snapshot
from splitpipe.server.state import open_database

ROOT = Path(__file__).resolve().parents[3]
CALLS = 30
ROWS = 20

# Says a number when its call was answered, and goes on with what is wanted next.
PROGRAM = """
import sys
from tests.server.catalog.test_killed import CALLS, opened, rows
from splitpipe.server.catalog.uploads import Uploads
with opened(sys.argv[1]) as catalog:
    uploads = Uploads(catalog)
    number = uploads.begin("d", "main", format=sys.argv[2])["next_sequence"]
    while number < CALLS:
        number = uploads.append("d", "main", number, rows(number))["next_sequence"]
        print(number, flush=True)
    uploads.finish("d", "main")
    uploads.close()
    print("finished", flush=True)
"""


class opened:  # noqa: N801 - a context manager, written as one is used
    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def __enter__(self) -> Datasets:
        self._database = open_database(f"sqlite:///{self._root}/state.sqlite")
        locations = Locations(str(self._root / "data"))
        self._catalog = Datasets(self._database, locations, indices=str(self._root / "indices"))
        return self._catalog

    def __exit__(self, *_: object) -> None:
        self._catalog.close()
        self._database.close()


def rows(number: int) -> list[dict[str, Any]]:
    return [{"n": ROWS * number + n, "text": "x" * (n % 5)} for n in range(ROWS)]


@pytest.mark.long
@pytest.mark.deadline(240)
@pytest.mark.parametrize("format", ["bins", "csv", "parquet"])
def test_every_call_is_there_exactly_once(tmp_path: Path, format: str) -> None:
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    with opened(str(root)) as catalog:
        catalog.create("d")
    chance = random.Random(f"{format} killed")
    answered = kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(root), format],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert process.stdout is not None
        with process, process.stdout:
            last = ""
            for _ in range(chance.randint(1, 8) if kills < 6 else CALLS + 1):
                last = process.stdout.readline().strip() or last
            if last == "finished":
                break
            answered = int(last)
            # Somewhere in the next call, or between two.
            for _ in range(chance.randint(0, 200_000)):
                pass
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        with opened(str(root)) as catalog:
            assert catalog.column_set("d", "main")["status"] in ("writing", "ready")
    assert kills >= 4
    assert answered < CALLS
    with opened(str(root)) as catalog, open_snapshot(catalog.pin("d")) as ds:
        assert json.loads(json.dumps(list(ds))) == [r for n in range(CALLS) for r in rows(n)]
