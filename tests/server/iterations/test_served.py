"""Modules and iterations through a real server: what its clients see of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from tests.server.iterations.making import MODULES
from tests.server.serving import Served, serving

COUNT = 60


def begun(served: Served, client: Any) -> None:
    """Let a server have a dataset and modules, once."""
    if client.datasets.list():
        return
    client.datasets.create("numbers")
    with client.writer("numbers", "main") as writer:
        writer.write_many({"n": n, "text": f"text {n}"} for n in range(COUNT))
    place(served, MODULES)
    client.modules.reload()


def place(served: Served, text: str) -> None:
    folder = served.root / "modules"
    folder.mkdir(exist_ok=True)
    (folder / "ours.py").write_text(text, encoding="utf-8")


@pytest.mark.long
@pytest.mark.deadline(180)
def test_modules_are_used_and_kept(tmp_path: Path) -> None:
    with serving(tmp_path / "root") as served:
        with sp.connect(served.url) as client:
            begun(served, client)
            told = client.modules.list()
            assert {one["name"] for one in told["modules"]} >= {"not_every", "Fails", "words"}
            given: dict[str, Any] = {
                "filters": [("not_every", {"n": 2})],
                "categorizer": ("remainder", {"n": 3}),
                "preprocessors": ["doubled"],
                "batch_size": 4,
            }
            with client.iterate("numbers", id="mine", **given) as loader:
                first = [next(loader)["n"].tolist() for _ in range(3)]
                loader.ack()
            assert first == [[2, 14, 26, 38], [6, 18, 30, 42], [10, 22, 34, 46]]
        # Another module of that name, and another server: what was begun keeps its own.
        place(served, MODULES.replace('batch["n"] * by', 'batch["n"] * 1000'))
        served.kill()
        served.start()
        with sp.connect(served.url) as client:
            with client.iterate("numbers", id="mine", **given) as loader:
                rest = [batch["n"].tolist() for batch in loader]
            numbers = [n for batch in first + rest for n in batch]
            assert sorted(numbers) == sorted(2 * n for n in range(COUNT) if n % 2)
            with client.iterate("numbers", preprocessors=["doubled"], batch_size=4) as loader:
                assert next(loader)["n"].tolist() == [0, 1000, 2000, 3000]


@pytest.mark.deadline(180)
def test_failures_reach_the_client(emptied: Served) -> None:
    with sp.connect(emptied.url) as client:
        begun(emptied, client)
        given: dict[str, Any] = {"filters": [("Fails", {"n": 60, "rest": 9})], "batch_size": 4}
        with client.iterate("numbers", **given) as loader:
            assert [next(loader)["n"].tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
            with pytest.raises(Exception, match="bad sample 9"):
                next(loader)
        with client.iterate("numbers", on_error="skip", **given) as loader:
            numbers = [n for batch in loader for n in batch["n"].tolist()]
            assert numbers == [n for n in range(COUNT) if n != 9]
        # Closing has said that the last batch arrived, too.
        progress = client.iterations.get(loader.iteration)["progress"]
        assert (progress["completed"], progress["failed"]) == (COUNT - 1, 1)
        with pytest.raises(sp.NotFound, match="no filter 'absent'"):
            client.iterate("numbers", filters=["absent"])
        with pytest.raises(sp.InvalidRequest, match="parameter 'n'"):
            client.iterate("numbers", filters=[("Fails", {"n": "x"})])
        with pytest.raises(sp.SplitpipeError, match="nowhere"):
            client.iterate("numbers", columns=["nowhere"])


@pytest.mark.long
@pytest.mark.deadline(300)
def test_a_sample_that_always_ends_the_engine_fails_its_iteration(emptied: Served) -> None:
    """Takes a minute: `SPLITPIPE_LONG=1 pytest tests/server/iterations/test_served.py`."""
    with sp.connect(emptied.url) as client:
        begun(emptied, client)
        module = emptied.root / "modules" / "deadly.py"
        module.write_text(
            "import os\nfrom splitpipe.server.modules import filter\n\n\n@filter\n"
            "def deadly(sample) -> bool:\n    return sample['n'] != 9 or os._exit(3)\n"
        )
        client.modules.reload()
        with (
            pytest.raises(sp.SplitpipeError, match="status 3"),
            client.iterate("numbers", filters=["deadly"], batch_size=4) as loader,
        ):
            list(loader)
        assert client.iterations.list()[0]["status"] == "failed"


@pytest.mark.deadline(180)
def test_the_program_that_is_shown_runs(emptied: Served) -> None:
    with sp.connect(emptied.url) as client:
        begun(emptied, client)
        spec = {"dataset": "numbers", "filters": [{"name": "not_every"}], "batch_size": 8}
        tried = client.iterations.try_out(spec, count=2)
        assert len(tried["batches"]) == 2
        code = client.iterations.snippet(spec)
        made: list[Any] = []
        exec(code.replace("        ...", "        made.append(batch)"), {"made": made})
        assert [n for batch in made for n in batch["n"].tolist()] == [
            n for n in range(COUNT) if n % 3
        ]
