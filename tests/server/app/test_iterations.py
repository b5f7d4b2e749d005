"""Iterations over REST: made, found again, read, killed, gone on with, stopped."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from splitpipe.wire.messages import Hello, Welcome, read_from_engine, write
from splitpipe.wire.packing import join, split_all
from tests.server.app.test_datasets import write_csv
from tests.server.feed.making import Dealer, wait_for
from tests.server.serving import Served

ROWS = 100
SPEC = {"batch_size": 10, "shuffle": "global", "seed": 3}

pytestmark = pytest.mark.deadline(180)


class Door:
    """Gives tickets of one iteration as `Engines` does, but over REST."""

    def __init__(self, server: Served, iteration: str) -> None:
        self._server = server
        self._iteration = iteration

    def ticket(self, _iteration: str, *, rank: int, client: str, session: str) -> Any:
        body = {"rank": rank, "session": session}
        path = f"/api/v1/iterations/{self._iteration}/tickets"
        return self._server.json("POST", path, body=body, status=201)


def make_dataset(server: Served, folder: Path) -> str:
    """Make one of its own for a test, and return its name."""
    name = folder.name
    where = write_csv(folder / "texts", rows=ROWS)
    server.json("POST", "/api/v1/datasets", body={"name": name})
    body = {"name": "main", "location": str(where), "format": "csv"}
    server.json("POST", f"/api/v1/datasets/{name}/column-sets", body=body)
    return name


def make_iteration(server: Served, *, id: str | None = None, **spec: Any) -> Any:
    body = {"spec": {**SPEC, **spec}, **({} if id is None else {"id": id})}
    return server.json("POST", "/api/v1/iterations", body=body, status=201)


def test_it_is_read_over_kills_of_the_server(served: Served, tmp_path: Path) -> None:
    name = make_dataset(served, tmp_path)
    made = make_iteration(served, dataset=name)
    assert (made["status"], made["total"]) == ("ready", 10)
    path = f"/api/v1/iterations/{made['id']}"
    with Dealer(Door(served, made["id"]), "me", window=2) as client:
        client.read_some(3)
        served.kill()
        served.start()
        client.connect()
        client.read_some(3)
        served.kill()
        served.start()
        client.connect()
        client.read_all()
        assert sorted(client.delivered) == list(range(10))
    progress = served.json("GET", path)["progress"]
    assert (progress["completed"], progress["filtered"], progress["failed"]) == (ROWS, 0, 0)
    served.kill()
    served.start()
    told = served.json("GET", path)
    assert told["progress"]["completed"] == ROWS
    assert served.json("GET", "/api/v1/iterations")[0] == told
    served.json("DELETE", path, status=204)
    served.json("GET", path, status=404)


def test_an_id_stands_for_one_description(emptied: Served, tmp_path: Path) -> None:
    name = make_dataset(emptied, tmp_path)
    made = make_iteration(emptied, dataset=name, id="mine")
    assert make_iteration(emptied, dataset=name, id="mine")["id"] == made["id"]
    assert emptied.json("GET", "/api/v1/iterations/mine")["id"] == made["id"]
    assert (
        make_iteration(emptied, dataset=name)["id"] != make_iteration(emptied, dataset=name)["id"]
    )
    said = emptied.json(
        "POST",
        "/api/v1/iterations",
        body={"spec": {**SPEC, "dataset": name, "seed": 4}, "id": "mine"},
        status=409,
    )
    assert "its seed is 3, not 4" in said["detail"]


@pytest.mark.long
def test_it_is_stopped_and_started(emptied: Served, tmp_path: Path) -> None:
    name = make_dataset(emptied, tmp_path)
    made = make_iteration(emptied, dataset=name)
    path = f"/api/v1/iterations/{made['id']}"
    with Dealer(Door(emptied, made["id"]), "me", window=2) as client:
        client.read_some(2)
        client.listen_until(lambda: not client.unconfirmed)
        assert emptied.json("POST", f"{path}/pushback")["batches"] >= 1
        assert emptied.json("POST", f"{path}/stop")["status"] == "stopped"
        ticket = {"session": "x" * 16}
        assert emptied.json("POST", f"{path}/tickets", body=ticket, status=409)
        assert emptied.json("GET", path)["progress"]["completed"] == 20
        assert emptied.json("POST", f"{path}/start")["status"] == "running"
    with Dealer(Door(emptied, made["id"]), "other") as client:
        assert sorted(client.read_all()) == list(range(2, 10))


def test_what_cannot_be(emptied: Served, tmp_path: Path) -> None:
    name = make_dataset(emptied, tmp_path)
    wrong = {
        "nothing": ({"dataset": "nothing"}, 404),
        "column": ({"columns": ["nothing"]}, 422),
        "filter": ({"filters": [{"name": "nothing"}]}, 404),
        "batchsize": ({"batchsize": 3}, 422),
        "size": ({"batch_size": -1}, 422),
    }
    for word, (fields, status) in wrong.items():
        said = emptied.json(
            "POST",
            "/api/v1/iterations",
            body={"spec": {**SPEC, "dataset": name, **fields}},
            status=status,
        )
        assert word in said["detail"] or word == "size"
    emptied.json(
        "POST", "/api/v1/iterations/nothing/tickets", body={"session": "x" * 16}, status=404
    )
    made = make_iteration(emptied, dataset=name)
    body = {"session": "x" * 16, "rank": 1}
    path = f"/api/v1/iterations/{made['id']}/tickets"
    assert "rank" in emptied.json("POST", path, body=body, status=422)["detail"]


@pytest.mark.long
def test_it_is_followed_by_events(emptied: Served, tmp_path: Path) -> None:
    name = make_dataset(emptied, tmp_path)
    made = make_iteration(emptied, dataset=name)
    url = f"{emptied.url}/api/v1/iterations/{made['id']}/events"
    with urllib.request.urlopen(url, timeout=120) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        first = next(line for line in stream if line.startswith(b"data:"))
        assert json.loads(first[5:])["status"] == "ready"
        with Dealer(Door(emptied, made["id"]), "me") as client:
            client.read_all()
        statuses = [json.loads(line[5:])["status"] for line in stream if line.startswith(b"data:")]
    assert statuses[-1] == "done"


@pytest.mark.long
def test_a_follower_holds_up_no_end(served: Served, tmp_path: Path) -> None:
    name = make_dataset(served, tmp_path)
    made = make_iteration(served, dataset=name)
    url = f"{served.url}/api/v1/iterations/{made['id']}/events"
    with urllib.request.urlopen(url, timeout=120) as stream:
        stream.readline()
        served.stop()
    assert "Traceback" not in served.log


def test_the_feed_over_http(emptied: Served, tmp_path: Path) -> None:
    name = make_dataset(emptied, tmp_path)
    made = make_iteration(emptied, dataset=name)
    path = f"/api/v1/iterations/{made['id']}"
    session = "y" * 16
    ticket = emptied.json("POST", f"{path}/tickets", body={"session": session})["ticket"]
    hello = join(write(Hello(ticket, session, 0, "", 4, 1 << 20, [], [])))
    link = "0" * 32
    assert emptied.call("POST", f"{path}/feed?link={link}&wait_s=0", body=hello)[0] == 200
    status, body, _ = emptied.call("POST", f"{path}/feed?link={link}&wait_s=10", body=b"")
    assert status == 200
    first = read_from_engine(split_all(body)[0])
    assert isinstance(first, Welcome)
    assert emptied.call("POST", f"{path}/feed?link={link}", body=b"nonsense")[0] == 400
    assert emptied.call("POST", f"{path}/feed?link=x", body=b"")[0] == 422


@pytest.mark.long
def test_numbers_of_iterations(emptied: Served, tmp_path: Path) -> None:
    name = make_dataset(emptied, tmp_path)
    made = make_iteration(emptied, dataset=name)
    with Dealer(Door(emptied, made["id"]), "me") as client:
        client.read_all()
    wanted = f'splitpipe_server_iteration_completed{{iteration="{made["id"]}"}} 100.0'
    wait_for(lambda: wanted in emptied.call("GET", "/metrics")[1].decode())
