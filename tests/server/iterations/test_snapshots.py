"""Iterations over pinned datasets: opened by description, tried out, written as a program."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.server.catalog import Datasets, Locations
from splitpipe.server.iterations.description import IterationSpec, ModuleRef
from splitpipe.server.iterations.made import Broken, Made
from splitpipe.server.iterations.snippet import snippet
from splitpipe.server.iterations.streams import open_stream
from splitpipe.server.iterations.trying import try_out
from splitpipe.server.state import open_database
from splitpipe.wire.values import decode
from tests.server.iterations.making import modules_in
from tests.servers import FileServer


def ref(name: str, **params: Any) -> ModuleRef:
    return ModuleRef(name=name, params=params)


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Any]:
    """A dataset of bins and CSV side by side."""
    data = tmp_path / "root" / "data"
    data.mkdir(parents=True)
    with sp.DatasetWriter(data / "bins", {"n": "int64", "x": sp.ndarray("float32", (3,))}) as made:
        made.write_many([{"n": n, "x": np.full(3, n, np.float32)} for n in range(20)])
    lines = "".join(f'text {n},"{n / 2}"\n' for n in range(20))
    (data / "texts.csv").write_text(f"text,half\n{lines}", encoding="utf-8")
    locations = Locations(str(data), cache=str(tmp_path / "cache"))
    with open_database(f"sqlite:///{tmp_path}/state.sqlite") as database:
        catalog = Datasets(database, locations, indices=str(tmp_path / "indices"))
        catalog.create("numbers")
        catalog.add_column_set("numbers", "main", location="bins", format="bins")
        catalog.add_column_set("numbers", "texts", location="texts.csv", format="csv")
        pinned = json.loads(json.dumps(catalog.pin("numbers")))
        catalog.close()
        yield pinned


def values(spec: IterationSpec, snapshot: Any, modules: Path | None = None, **more: Any) -> Any:
    with open_stream(spec, snapshot, modules, **more) as stream:
        return [decode(event.frames) for event in stream if isinstance(event, Made)]


class TestSnapshots:
    @pytest.mark.deadline(120)
    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.parametrize("filters", [[], [ref("not_every", n=100)]])
    def test_columns_of_several_sets_come_together(
        self, tmp_path: Path, snapshot: Any, workers: int, filters: list[ModuleRef]
    ) -> None:
        spec = IterationSpec(
            dataset="numbers", shuffle="global", batch_size=6, workers=workers, filters=filters
        )
        made = values(spec, snapshot, modules_in(tmp_path))
        assert sorted(n for value in made for n in value["n"].tolist()) == list(
            range(1 if filters else 0, 20)
        )
        for value in made:
            assert value["text"] == [f"text {n}" for n in value["n"].tolist()]
            assert value["half"].tolist() == (value["n"] / 2).tolist()
            assert (value["x"] == value["n"][:, None]).all()

    def test_some_columns_alone(self, snapshot: Any) -> None:
        spec = IterationSpec(dataset="numbers", columns=["half", "n"], batch_size=20)
        (value,) = values(spec, snapshot)
        assert list(value) == ["half", "n"]

    def test_a_file_that_is_gone_is_told_at_its_records(
        self, tmp_path: Path, snapshot: Any
    ) -> None:
        (tmp_path / "root" / "data" / "texts.csv").unlink()
        spec = IterationSpec(dataset="numbers", batch_size=5)
        with open_stream(spec, snapshot, None) as stream:
            broken = next(stream)
        assert isinstance(broken, Broken)
        assert broken.sequence == 0
        assert "texts" in broken.error.message + broken.error.details


class TestFarAway:
    @pytest.mark.deadline(120)
    @pytest.mark.parametrize(
        "more",
        [{}, {"workers": 1}, {"filters": [ref("not_every", n=100)]}, {"on_error": "skip"}],
        ids=["plain", "worker", "filter", "skip"],
    )
    def test_bins_and_lines_are_read_over_http(
        self, tmp_path: Path, file_server: FileServer, more: Any
    ) -> None:
        fields = {"n": "int64", "x": sp.ndarray("float32", (3,))}
        with sp.DatasetWriter(file_server.folder / "bins", fields) as made:
            made.write_many([{"n": n, "x": np.full(3, n, np.float32)} for n in range(50)])
        lines = "".join(f"text {n}\n" for n in range(50))
        (file_server.folder / "texts.csv").write_text(f"text\n{lines}", encoding="utf-8")
        (tmp_path / "data").mkdir()
        locations = Locations(
            str(tmp_path / "data"),
            allow_remote=(file_server.url,),
            cache=str(tmp_path / "cache"),
        )
        with open_database(f"sqlite:///{tmp_path}/state.sqlite") as database:
            catalog = Datasets(database, locations, indices=str(tmp_path / "indices"))
            catalog.create("numbers")
            url = file_server.url
            catalog.add_column_set("numbers", "main", location=f"{url}/bins", format="bins")
            catalog.add_column_set("numbers", "texts", location=f"{url}/texts.csv", format="csv")
            pinned = json.loads(json.dumps(catalog.pin("numbers")))
            catalog.close()
        spec = IterationSpec(dataset="numbers", shuffle="global", batch_size=8, **more)
        made_ = values(spec, pinned, modules_in(tmp_path))
        read = [n for value in made_ for n in value["n"].tolist()]
        assert sorted(read) == list(range(1 if "filters" in more else 0, 50))
        assert [text for value in made_ for text in value["text"]] == [f"text {n}" for n in read]
        assert {str(value["x"].dtype) for value in made_} == {"float32"}


class TestTryingOut:
    def test_shows_the_first_batches(self, tmp_path: Path, snapshot: Any) -> None:
        spec = IterationSpec(
            dataset="numbers", batch_size=4, filters=[ref("not_every")], workers=2, epochs=9
        )
        told = try_out(spec, snapshot, modules_in(tmp_path), count=2)
        assert (told["error"], told["ended"], len(told["batches"])) == (None, False, 2)
        first = told["batches"][0]
        assert (first["samples"], first["filtered"], first["failed"]) == (4, 2, 0)
        assert first["value"]["text"] == ["text 1", "text 2", "text 4", "text 5"]
        assert first["value"]["x"]["shape"] == [4, 3]
        assert first["value"]["n"]["head"] == [1, 2, 4, 5]
        json.dumps(told, allow_nan=False)

    def test_says_when_there_is_no_more(self, tmp_path: Path, snapshot: Any) -> None:
        spec = IterationSpec(dataset="numbers", batch_size=4, filters=[ref("not_every", n=1)])
        told = try_out(spec, snapshot, modules_in(tmp_path), count=2)
        assert (told["batches"], told["ended"], told["filtered"]) == ([], True, 20)

    def test_says_what_is_wrong(self, tmp_path: Path, snapshot: Any) -> None:
        modules = modules_in(tmp_path)
        spec = IterationSpec(dataset="numbers", batch_size=4, filters=[ref("Fails", n=10, rest=9)])
        told = try_out(spec, snapshot, modules, count=9)
        assert len(told["batches"]) == 2
        assert (told["error"]["stage"], told["error"]["record"]) == ("Fails", 9)
        spec = IterationSpec(dataset="numbers", filters=[ref("absent")])
        assert "no filter 'absent'" in try_out(spec, snapshot, modules)["error"]["message"]
        (modules / "ours.py").write_text(
            "from splitpipe.server.modules import filter\n"
            "import threading\n"
            "@filter\n"
            "def hangs(sample):\n"
            "    if sample['n'] == 5:\n"
            "        threading.Event().wait()\n"
            "    return True\n"
        )
        spec = IterationSpec(dataset="numbers", batch_size=4, filters=[ref("hangs")])
        told = try_out(spec, snapshot, modules, silence_s=3.0)
        assert len(told["batches"]) == 1
        assert "said nothing for 3 s" in told["error"]["message"]


class TestSnippets:
    def test_say_what_is_not_as_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = IterationSpec(
            dataset='the "news"',
            columns=["text", "label"],
            filters=[ref("long_enough", least=3, unit="words"), ref("good")],
            categorizer=ref("by_length"),
            batch_size=32,
            shuffle="global",
            seed=7,
            world_size=4,
            lease_s=5.0,
        )
        code = snippet(spec, url="https://data:8000", name="mine")
        tree = ast.parse(code)
        (call,) = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "client.iterate"
        ]
        assert ast.literal_eval(call.args[0]) == spec.dataset
        given = {one.arg: one.value for one in call.keywords}
        rank = compile(ast.Expression(given.pop("rank")), "rank", "eval")
        monkeypatch.setenv("RANK", "3")
        assert eval(rank, {"os": os}) == 3
        monkeypatch.delenv("RANK")
        assert eval(rank, {"os": os}) == 0
        assert code.startswith("import os\n")
        assert {name: ast.literal_eval(value) for name, value in given.items()} == {
            "columns": ["text", "label"],
            "filters": [("long_enough", {"least": 3, "unit": "words"}), "good"],
            "categorizer": "by_length",
            "batch_size": 32,
            "shuffle": "global",
            "seed": 7,
            "world_size": 4,
            "lease_s": 5.0,
            "id": "mine",
        }
        assert 'sp.connect("https://data:8000")' in code

    @pytest.mark.parametrize("text", ["\"); import os; os.system('x') #", "a\nb", "\\", "'\"", "é"])
    def test_texts_stay_texts(self, text: str) -> None:
        spec = IterationSpec(dataset=text, filters=[ref("f", x=text)])
        tree = ast.parse(snippet(spec, url="http://h", name=text))
        constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        assert constants.count(text) == 3
