"""`replay` makes the very item again, and says how it came about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime.digest import digest
from splitpipe.verification.graphs import prefixes, settled, varied, with_seed
from tests.verification import planted

FORK = {"start_method": "fork"}


def noisy(x: Any, rng: np.random.Generator) -> dict[str, Any]:
    return {"x": np.full(30, x), "noise": rng.random(2)}


def pipeline() -> sp.Pipeline:
    return sp.Pipeline(range(100), shuffle="global", seed=4).map(noisy, workers=2).batch(8)


def recorded(folder: Path, pipe: sp.Pipeline, **options: Any) -> list[bytes]:
    record = sp.Record(folder, digests=True)
    with pipe.loader(record=record, **options) as loader:
        return [digest(item) for item in loader]


@pytest.mark.parametrize("step", [0, 7, 12, 13, 20, 25])
def test_every_batch_of_workers_is_made_again(tmp_path: Path, step: int) -> None:
    marks = recorded(tmp_path, pipeline(), epochs=2, **FORK)
    assert len(marks) == 26
    made = sp.replay(tmp_path, step, pipeline())
    assert made.same is True
    assert digest(made.item) == marks[step]
    (origin,) = made.origins
    assert origin.exact
    assert list(origin.records) == made.item["x"][:, 0].tolist()
    noise, batch = made.stages
    assert (noise.name, noise.rng, batch.items) == ("noisy", "item", 1)
    assert noise.numbers == tuple(range(origin.start, origin.stop))
    assert made.changes == ()
    assert f"step {step}: item {step % 13} of epoch {step // 13}, seed 4" in made.text
    assert json.loads(json.dumps(made.to_json()))["same"] is True


def test_a_graph_of_many_stages(tmp_path: Path) -> None:
    pipe = planted.clean()
    marks = recorded(tmp_path, pipe, executor="inline", epochs=2)
    for step in range(0, len(marks), 5):
        made = sp.replay(tmp_path, step, pipe)
        assert made.same is True
        assert digest(made.item) == marks[step]
        assert {origin.source for origin in made.origins} == {"source"}
        assert not any(origin.exact for origin in made.origins)
        assert {stage.rng for stage in made.stages if "shuffle" in stage.name} == {"epoch"}


def test_begins_at_the_nearest_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("capture", "engine", "ledger"):  # as if every item took long
        monkeypatch.setattr(f"splitpipe.runtime.{module}.NOTE_S", 0.0)
    read: list[int] = []

    def noted(x: int) -> int:
        read.append(x)
        return x

    pipe = sp.Pipeline(range(400)).map(noted).filter(planted.kept).shuffle(4).batch(2)
    record = sp.Record(tmp_path, digests=True, every_s=1e-9)
    with pipe.loader(executor="inline", record=record) as loader:
        count = sum(1 for _ in loader)
    read.clear()
    made = sp.replay(tmp_path, count - 2, pipe)
    assert made.same is True
    assert len(read) < 100  # not from the beginning of the epoch
    assert made.recorded.state is not None


def test_far_into_an_endless_source(tmp_path: Path) -> None:
    pipe = sp.Pipeline(range(1 << 40), shuffle="global", seed=1).map(noisy).batch(4)
    record = sp.Record(tmp_path, digests=True)
    with pipe.loader(executor="inline", record=record) as loader:
        loader.seek(10**9)
        mark = digest(next(loader))
    made = sp.replay(tmp_path, 0, pipe)
    assert (made.recorded.ordinal, digest(made.item)) == (10**9, mark)
    assert made.stages[0].items == 4  # and no others were made for it


def test_what_has_changed_is_told_and_replayed(tmp_path: Path) -> None:
    def scaled(x: int) -> int:
        return x * 2

    def mended(x: int) -> int:
        return x * 3

    source = sp.Pipeline(range(10))
    recorded(tmp_path, source.map(scaled, name="scale"), executor="inline")
    made = sp.replay(tmp_path, 4, source.map(mended, name="scale"))
    assert made.item == 12
    assert made.same is False
    assert made.changes == ("'scale' has changed: its code or options",)
    assert "NOT the one" in made.text


def test_a_pipeline_that_does_not_get_there(tmp_path: Path) -> None:
    recorded(tmp_path, sp.Pipeline(range(10)), executor="inline")
    with pytest.raises(sp.PipelineError, match="ends before item 7"):
        sp.replay(tmp_path, 7, sp.Pipeline(range(5)))


def test_without_digests_nothing_is_compared(tmp_path: Path) -> None:
    with sp.Pipeline(range(10)).loader(executor="inline", record=tmp_path) as loader:
        assert len(list(loader)) == 10
    made = sp.replay(tmp_path, 3, sp.Pipeline(range(10)))
    assert (made.item, made.same) == (3, None)
    assert "none was recorded" in made.text


def test_saving(tmp_path: Path) -> None:
    item = {"image": np.ones((2, 3), np.uint8), "meta": {"ids": np.arange(3), "name": "a"}}
    recorded(tmp_path / "flight", sp.Pipeline([item]), executor="inline")
    made = sp.replay(tmp_path / "flight", 0, sp.Pipeline([item]))
    assert made.save(tmp_path / "item.npz") == ("image", "meta.ids")
    with np.load(tmp_path / "item.npz") as saved:
        assert (saved["image"] == 1).all()
        assert saved["meta.ids"].tolist() == [0, 1, 2]
        assert json.loads(str(saved["json"])) == {"meta.name": "a"}
    with pytest.raises(sp.StorageError, match="cannot save"):
        made.save(tmp_path / "missing" / "item.npz")


class TestGraphs:
    """The graphs that verifying makes of a user's."""

    def test_cutting_keeps_names_and_so_random_numbers(self) -> None:
        def drawn(x: Any, rng: np.random.Generator) -> Any:
            return x, float(rng.random())

        numbers = sp.Pipeline(range(6), seed=1)
        pipe = sp.zip(numbers.map(drawn).map(drawn), numbers.map(drawn))
        whole = settled(pipe)
        assert list(whole) == list(pipe)
        parts = dict(prefixes(whole))
        assert [name for name in parts if "drawn" in name] == ["drawn", "drawn-2", "drawn-3"]
        expected = [right for _, right in pipe]
        assert list(parts["drawn-3"]) == expected

    @pytest.mark.parametrize("workers", [None, 0])
    def test_other_workers_change_no_node(self, workers: int | None) -> None:
        pipe = settled(planted.clean())
        other = varied(pipe, workers)
        assert [stage.name for stage in other.stages] == [stage.name for stage in pipe.stages]
        assert list(other) == list(pipe)

    def test_another_seed_is_that_of_a_graph_that_was_described_with_it(self) -> None:
        def described(seed: int) -> sp.Pipeline:
            return sp.Pipeline(range(9), shuffle="global", seed=seed).shuffle(4)

        assert list(with_seed(described(1), 2)) == list(described(2)) != list(described(1))
