"""Datasets over REST: making, adding, writing, reading, forgetting."""

from __future__ import annotations

from pathlib import Path

from tests.server.serving import Served


def write_csv(folder: Path, rows: int = 10) -> Path:
    folder.mkdir()
    lines = [f"{number},text {number}" for number in range(rows)]
    (folder / "part.csv").write_text("\n".join(["number,text", *lines]) + "\n")
    return folder


def test_the_life_of_a_dataset(standing: Served, tmp_path: Path) -> None:
    where = write_csv(tmp_path / "texts")
    made = standing.json("POST", "/api/v1/datasets", body={"name": "news"}, status=201)
    assert made["name"] == "news"
    body = {"name": "main", "location": str(where), "format": "csv"}
    added = standing.json("POST", "/api/v1/datasets/news/column-sets", body=body, status=201)
    assert added["rows"] == 10
    told = standing.json("GET", f"/api/v1/datasets/{made['id']}")
    assert told["records"] == 10
    assert [one["name"] for one in standing.json("GET", "/api/v1/datasets")] == ["news"]
    standing.json("DELETE", "/api/v1/datasets/news", status=204)
    assert standing.json("GET", "/api/v1/datasets/news", status=404)["type"] == "NotFound"
    assert (where / "part.csv").exists()


def test_nothing_outside_of_the_roots(standing: Served) -> None:
    standing.json("POST", "/api/v1/datasets", body={"name": "news"})
    for location in ("/etc", "../../../etc", "http://127.0.0.1:1/x.csv", "file:///etc"):
        body = {"name": "main", "location": location, "format": "csv"}
        said = standing.json("POST", "/api/v1/datasets/news/column-sets", body=body, status=403)
        assert said["type"] == "NotAllowed"


def test_a_field_that_nobody_knows(standing: Served) -> None:
    said = standing.json("POST", "/api/v1/datasets", body={"name": "x", "nmae": "y"}, status=422)
    assert "nmae" in said["detail"]
    assert (
        standing.json("POST", "/api/v1/datasets", body={}, status=422)["type"] == "ValidationError"
    )
