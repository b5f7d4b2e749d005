"""A client against a real server: all that a program can do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.client import Client
from splitpipe.errors import (
    ClosedChannel,
    Conflict,
    InvalidRequest,
    NotFound,
    ResumeError,
    ServiceError,
    Unavailable,
    WireError,
)
from tests.server.serving import Served, serving

MODULES = '''"""Modules of a test."""

from splitpipe.server.modules import filter, preprocessor


@filter
def enough(sample, *, least: int = 0) -> bool:
    """Keep what has an id of at least this."""
    return sample["id"] >= least


@preprocessor
def add(batch, *, number: int = 1):
    """Add to the ids."""
    return {**batch, "id": batch["id"] + number}
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "modules").mkdir()
    (folder / "modules" / "mine.py").write_text(MODULES)
    with serving(folder / "root", "--modules", str(folder / "modules")) as served:
        with sp.connect(served.url) as client:
            client.datasets.create("numbers")
            with client.writer("numbers", "main") as writer:
                writer.write_many({"id": n, "text": f"row {n}"} for n in range(200))
        yield served


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    with sp.connect(server.url) as made:
        yield made


pytestmark = pytest.mark.leaks("the server of this module is there before and after")


def ids(batches: list[Any]) -> list[int]:
    return [int(number) for batch in batches for number in batch["id"]]


class TestWriting:
    @pytest.mark.parametrize("format", ["bins", "csv", "jsonl", "parquet"])
    def test_rows_come_back(self, client: Client, format: str) -> None:
        name = f"written-as-{format}"
        client.datasets.create(name)
        columns = {"id": "int64", "text": "str"}
        with client.writer(name, "main", format=format, columns=columns) as writer:
            writer.write({"id": 0, "text": "first"})
            writer.flush()
            writer.write_many({"id": n, "text": f"{n}"} for n in range(1, 50))
        assert writer.rows_written == 50
        with client.iterate(name, batch_size=20) as loader:
            batches = list(loader)
        assert ids(batches) == list(range(50))
        assert list(batches[0]["text"])[:2] == ["first", "1"]

    def test_a_column_is_added_without_the_others(self, client: Client) -> None:
        field = sp.ndarray("float32", (3,))
        with client.writer("numbers", "vectors", columns={"vector": field}) as writer:
            writer.write_many({"vector": np.full(3, n, "f4")} for n in range(200))
        with client.iterate("numbers", columns=["vector"], batch_size=100) as loader:
            vectors = np.concatenate([batch["vector"] for batch in loader])
        assert (vectors == np.arange(200, dtype="f4")[:, None]).all()

    def test_one_that_failed_goes_on(self, client: Client) -> None:
        client.datasets.create("broken-off")
        writer = client.writer("broken-off", "main")
        writer.write_many({"id": n} for n in range(10))
        writer.flush()
        writer.write({"id": 99})
        writer.__exit__(KeyError, KeyError(), None)
        with pytest.raises(ClosedChannel):
            writer.write({"id": 1})
        with client.writer("broken-off", "main") as again:
            assert again.rows_written == 10
            again.write_many({"id": n} for n in range(10, 20))
        with client.iterate("broken-off", batch_size=5) as loader:
            assert ids(list(loader)) == list(range(20))

    def test_what_cannot_travel_is_named(self, client: Client) -> None:
        client.datasets.create("odd")
        writer = client.writer("odd", "main")
        writer.write({"id": {1}})
        with pytest.raises(WireError, match=r"value\[0\]\['id'\] is a set"):
            writer.close()
        with pytest.raises(InvalidRequest, match="a row is a dict"):
            client.writer("odd", "main").write([1])  # type: ignore[arg-type]


class TestIterating:
    def test_every_record_once(self, client: Client) -> None:
        with client.iterate("numbers", batch_size=32, shuffle="global", seed=1) as loader:
            found = ids(list(loader))
        assert sorted(found) == list(range(200)) != found

    def test_as_in_process(self, client: Client, server: Served) -> None:
        location = client.datasets.column_sets.get("numbers", "main")["location"]
        dataset = sp.open_dataset(server.root / "data" / location)
        pipe = sp.Pipeline(dataset, shuffle="global", seed=5).batch(32)
        with pipe.loader(executor="inline", epochs=2) as local:
            wanted = ids(list(local))
        with client.iterate(
            "numbers", columns=["id"], batch_size=32, shuffle="global", seed=5, epochs=2
        ) as loader:
            assert ids(list(loader)) == wanted

    def test_modules(self, client: Client) -> None:
        with client.iterate(
            "numbers",
            filters=[("enough", {"least": 100})],
            preprocessors=[{"name": "add", "params": {"number": 1000}}],
            batch_size=30,
        ) as loader:
            assert ids(list(loader)) == list(range(1100, 1200))

    def test_the_same_id_is_the_same_iteration(self, client: Client) -> None:
        with client.iterate("numbers", batch_size=10, id="shared") as one:
            first = [next(one) for _ in range(3)]
        with client.iterate("numbers", batch_size=10, id="shared") as other:
            assert other.iteration == one.iteration
            assert ids(first + list(other)) == list(range(200))
        with pytest.raises(Conflict):
            client.iterate("numbers", batch_size=11, id="shared")

    def test_a_state_goes_on(self, client: Client) -> None:
        with client.iterate("numbers", batch_size=10, mode="follow") as loader:
            next(loader)
            state = loader.state_dict()
            rest = ids(list(loader))
        with client.iterate("numbers", batch_size=10, mode="follow", state=state) as loader:
            assert ids(list(loader)) == rest
        with client.follow(state["iteration"], state=state) as loader:
            assert ids(list(loader)) == rest
        with pytest.raises(ResumeError, match="batch_size was 10, and is 9"):
            client.iterate("numbers", batch_size=9, mode="follow", state=state)

    def test_asynchronously(self, client: Client) -> None:
        async def read() -> list[Any]:
            async with client.iterate_async("numbers", batch_size=16) as loader:
                return [batch async for batch in loader]

        assert ids(asyncio.run(read())) == list(range(200))

    def test_over_http(self, client: Client) -> None:
        with client.iterate("numbers", batch_size=16, transport="http") as loader:
            assert ids(list(loader)) == list(range(200))

    def test_progress(self, client: Client) -> None:
        with client.iterate("numbers", batch_size=50) as loader:
            list(loader)
            assert loader.stats().total == 4
        told = client.iterations.get(loader.iteration)
        assert told["progress"]["completed"] == 200
        assert loader.iteration in {one["id"] for one in client.iterations.list()}
        client.iterations.delete(loader.iteration)
        with pytest.raises(NotFound):
            client.iterations.get(loader.iteration)


class TestRefusals:
    @pytest.mark.parametrize(
        ("more", "error"),
        [
            ({"dataset": "nobody's"}, NotFound),
            ({"columns": ["none"]}, ServiceError),
            ({"filters": ["none"]}, ServiceError),
            ({"batch_size": -1}, InvalidRequest),
            ({"unheard_of": 1}, InvalidRequest),
            ({"filters": "one"}, InvalidRequest),
            ({"filters": [3]}, InvalidRequest),
            ({"ack": "never"}, InvalidRequest),
            ({"transport": "pigeon"}, InvalidRequest),
            ({"prefetch": 0}, InvalidRequest),
        ],
        ids=str,
    )
    def test_each_says_why(
        self, client: Client, more: dict[str, Any], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            client.iterate(**{"dataset": "numbers", **more}).close()

    def test_nobody_there(self) -> None:
        with pytest.raises(Unavailable, match=r"tried for \d"):
            sp.connect("http://127.0.0.1:1", retry_s=0.2).datasets.list()

    @pytest.mark.parametrize("url", ["ftp://x", "x", "http://u:p@x", "http://x/?token=1"])
    def test_urls(self, url: str) -> None:
        with pytest.raises(InvalidRequest):
            sp.connect(url)

    def test_the_token_is_shown_nowhere(self, server: Served) -> None:
        client = sp.connect(server.url, token="very-secret")
        with pytest.raises(ServiceError) as caught:
            client.datasets.list()
        text = repr(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
        assert "very-secret" not in text + repr(client) + repr(vars(client.datasets))


def test_parts(client: Client, server: Served) -> None:
    assert client.version()["version"] == sp.__version__
    assert "numbers" in {one["name"] for one in client.datasets.list()}
    assert client.datasets.get("numbers")["rows"] == 200
    rows = client.datasets.preview("numbers", limit=2, columns=["id"])["rows"]
    assert [row["values"]["id"] for row in rows] == [0, 1]
    assert {one["name"] for one in client.modules.list()["modules"]} >= {"enough"}
    assert client.iterations.snippet({"dataset": "numbers"}).startswith("import splitpipe")
    checked = client.tasks.wait(client.datasets.check("numbers"))
    assert checked["result"] == {"records": 200, "unreadable": 0, "problems": []}
    with pytest.raises(sp.InvalidRequest, match="'id' already"):
        client.datasets.preprocess(
            "numbers", "more", preprocessors=["add"], outputs=["id"], on_error="skip"
        )
    token = client.tokens.create("somebody", role="read")
    assert token["id"] in {one["id"] for one in client.tokens.list()}
    client.tokens.delete(token["id"])
    client.datasets.create("for-a-moment")
    for name in ("main", "other"):
        with client.writer("for-a-moment", name) as writer:
            writer.write({name: 1})
    with client.writer("for-a-moment", "main", reopen=True) as writer:
        assert writer.rows_written == 1
        writer.write({"main": 2})
    assert client.datasets.column_sets.get("for-a-moment", "main")["rows"] == 2
    folder = server.root / "data" / client.datasets.get("for-a-moment")["id"]
    client.datasets.column_sets.remove("for-a-moment", "other", remove_data=True)
    assert [one.name.partition("-")[0] for one in folder.iterdir()] == ["main"]
    client.datasets.delete("for-a-moment", remove_data=True)
    assert list(folder.iterdir()) == []


def test_a_value_may_be_larger_than_an_answer(client: Client, server: Served) -> None:
    nbytes = (64 << 20) + 1
    with sp.DatasetWriter(str(server.root / "data" / "large")) as writer:
        writer.write({"blob": bytes(nbytes)})
    client.datasets.create("large")
    client.datasets.column_sets.add("large", "main", "large", format="bins")
    assert len(client.datasets.media("large", 0, "blob")) == nbytes
    client.datasets.delete("large")


def test_many_files_are_looked_at_by_a_task(client: Client, server: Served) -> None:
    folder = server.root / "data" / "many"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.jsonl").write_text(f'{{"n": {number}}}\n')
    client.datasets.create("many-files")
    add = partial(client.datasets.column_sets.add, "many-files", "main", "many")
    for _ in range(2):
        assert add(format="jsonl")["rows"] == 40
    assert [task["kind"] for task in client.tasks.list()].count("add") == 1
    with pytest.raises(ServiceError, match="is in column set 'main'"):
        client.datasets.column_sets.add("many-files", "o", "many", format="jsonl")
    client.datasets.delete("many-files")
