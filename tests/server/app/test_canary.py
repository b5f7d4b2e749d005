"""A pickle that sings when it is unpickled, given to everything that takes bytes: nobody sings."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

import splitpipe as sp
from splitpipe.wire.packing import join, pack
from tests.server.app.test_datasets import write_csv
from tests.server.serving import Served

pytestmark = [pytest.mark.long, pytest.mark.deadline(120)]


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, song: Path) -> None:
        self.song = song

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.song),)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song"
    pickle.loads(pickle.dumps(Canary(path)))  # it can sing
    path.rmdir()
    return path


def songs(song: Path) -> list[bytes]:
    """The canary in all forms in which somebody might unpickle it."""
    plain = [pickle.dumps(Canary(song), protocol) for protocol in (0, 2, 4, 5)]
    inside = np.empty(1, object)
    inside[0] = Canary(song)
    plain.append(pickle.dumps(inside))
    plain.append(pickletools.optimize(plain[2]))
    return [*plain, *(pack(one) for one in plain), *(join([one]) for one in plain)]


def test_every_route(emptied: Served, song: Path) -> None:
    document = emptied.json("GET", "/openapi.json")
    kinds = ("application/octet-stream", "application/json", "application/x-pickle", "text/plain")
    asked = 0
    for path, methods in document["paths"].items():
        for method in set(methods) & {"post", "put", "delete", "patch"}:
            there = path.replace("{row}", "0").replace("{dataset}", "d").replace("{", "")
            there = there.replace("}", "") + f"?sequence=0&link={'0' * 32}"
            for number, body in enumerate(songs(song)):
                kind = kinds[number % len(kinds)]
                status, said, _ = emptied.call(method.upper(), there, body=body, Content_Type=kind)
                assert status < 500, said
                asked += 1
    assert asked > 100
    assert not song.exists()


def test_an_upload(emptied: Served, song: Path) -> None:
    emptied.json("POST", "/api/v1/datasets", body={"name": "canary"})
    sets = "/api/v1/datasets/canary/column-sets"
    emptied.json("POST", sets, body={"name": "main", "format": "bins"})
    for body in songs(song):
        assert emptied.call("POST", f"{sets}/main/rows?sequence=0", body=body)[0] in (400, 422)
    # Bytes are bytes: they are stored, and given back, as what they are.
    said = pickle.dumps(Canary(song))
    emptied.json("POST", f"{sets}/main/rows?sequence=0", body=pack([{"x": said}]))
    emptied.json("POST", f"{sets}/main/finish")
    emptied.json("GET", "/api/v1/datasets/canary/records")
    status, content, headers = emptied.call("GET", "/api/v1/datasets/canary/records/0/x")
    assert (status, content) == (200, said)
    assert headers["content-type"] == "application/octet-stream"
    assert "sandbox" in headers["content-security-policy"]
    emptied.json("DELETE", "/api/v1/datasets/canary")
    assert not song.exists()


def test_a_dataset_that_holds_pickles(emptied: Served, song: Path, tmp_path: Path) -> None:
    with sp.DatasetWriter(tmp_path / "bins", {"x": "pickle", "y": "int64"}) as writer:
        writer.write({"x": Canary(song), "y": 1})
    emptied.json("POST", "/api/v1/datasets", body={"name": "held"})
    body = {"name": "main", "location": str(tmp_path / "bins"), "format": "bins"}
    emptied.call("POST", "/api/v1/datasets/held/column-sets", body=body)
    for path in ("", "/records", "/records/0/x", "/records/0/y", "/statistics"):
        assert emptied.call("GET", f"/api/v1/datasets/held{path}")[0] < 500
    spec = {"dataset": "held", "batch_size": 1}
    assert emptied.call("POST", "/api/v1/iterations/try", body={"spec": spec})[0] < 500
    emptied.json("DELETE", "/api/v1/datasets/held")
    assert not song.exists()


def test_the_sockets_of_an_engine(emptied: Served, song: Path, tmp_path: Path) -> None:
    where = write_csv(tmp_path / "texts")
    emptied.json("POST", "/api/v1/datasets", body={"name": "fed"})
    body = {"name": "main", "location": str(where), "format": "csv"}
    emptied.json("POST", "/api/v1/datasets/fed/column-sets", body=body)
    made = emptied.json("POST", "/api/v1/iterations", body={"spec": {"dataset": "fed"}})
    path = f"/api/v1/iterations/{made['id']}"
    ticket = emptied.json("POST", f"{path}/tickets", body={"session": "z" * 16})
    with zmq.Context() as context:
        for endpoint in ticket["endpoints"]:
            with context.socket(zmq.DEALER) as dealer:
                dealer.linger = 1000
                dealer.connect(endpoint)
                for one in songs(song):
                    dealer.send_multipart([one])
                    dealer.send_multipart([one, one])
    for one in songs(song):
        assert emptied.call("POST", f"{path}/feed?link={'1' * 32}", body=one)[0] < 500
    assert emptied.json("GET", path)["status"] in ("ready", "running")
    assert not song.exists()
