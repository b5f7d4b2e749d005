"""Rows that are sent to a server which is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.wire.packing import pack
from tests.server.serving import Served, serving


def test_rows_that_are_sent_survive_a_kill(served: Served) -> None:
    served.json("POST", "/api/v1/datasets", body={"name": "made"})
    path = "/api/v1/datasets/made/column-sets"
    begun = served.json("POST", path, body={"name": "main", "format": "bins"}, status=201)
    assert begun["next_sequence"] == 0
    rows = {"x": np.arange(5), "y": np.ones((5, 3), np.float32)}
    answer = served.json("POST", f"{path}/main/rows?sequence=0", body=pack(rows))
    assert answer == {"next_sequence": 1, "rows": 5}
    served.kill()
    served.start()
    assert served.json("POST", f"{path}/main/rows?sequence=0", body=pack(rows))["rows"] == 5
    assert served.json("POST", f"{path}/main/rows?sequence=1", body=pack(rows))["rows"] == 10
    assert served.json("POST", f"{path}/main/rows?sequence=7", body=pack(rows), status=409)
    assert served.json("POST", f"{path}/main/finish")["rows"] == 10
    assert served.json("GET", "/api/v1/datasets/made")["records"] == 10


def test_no_call_is_larger_than_the_server_takes(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "root", "--max-upload", "1") as served,
        sp.connect(served.url) as client,
    ):
        client.datasets.create("made")
        with client.writer("made", "main") as writer:
            for number in (7, 4, 9, 1):
                writer.write({"blob": bytes(number * 100_000)})
            with pytest.raises(sp.InvalidRequest, match="--max-upload"):
                writer.write({"blob": bytes(2_000_000)})
            writer.write({"blob": b"the last one"})
        shown = client.datasets.preview("made")["rows"]
        assert [row["values"]["blob"]["nbytes"] for row in shown] == [
            *(700_000, 400_000, 900_000, 100_000),
            12,
        ]
