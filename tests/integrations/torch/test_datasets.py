"""Datasets and pipelines inside of torch's own `DataLoader`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="datasets for PyTorch")

from torch.utils.data import DataLoader  # noqa: E402  torch may be absent

import splitpipe as sp  # noqa: E402
from splitpipe.integrations.torch import IterableDataset, MapDataset  # noqa: E402

RECORDS = 50


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "dataset"
    with sp.DatasetWriter(path, bins=3) as writer:
        for n in range(RECORDS):
            writer.write({"x": np.full(5, n, np.float32), "y": n})
    return path


def doubled(record: dict[str, Any]) -> dict[str, Any]:
    return {"x": record["x"] * 2, "y": record["y"]}


class TestMapDataset:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_batches(self, path: Path, workers: int) -> None:
        with sp.open_dataset(path) as dataset:
            loader = DataLoader(MapDataset(dataset, doubled), batch_size=8, num_workers=workers)
            seen = []
            for batch in loader:
                assert (batch["x"][:, 0] == 2 * batch["y"]).all()
                seen += batch["y"].tolist()
        assert seen == list(range(RECORDS))

    def test_it_is_a_sequence(self, path: Path) -> None:
        with sp.open_dataset(path) as dataset:
            items = MapDataset(dataset)
            assert len(items) == RECORDS
            assert items[7]["y"] == 7
            assert [one["y"] for one in items.__getitems__([3, 1])] == [3, 1]
            assert repr(items).startswith("MapDataset(")

    def test_it_travels(self, path: Path) -> None:
        with sp.open_dataset(path) as dataset:
            copy = pickle.loads(pickle.dumps(MapDataset(dataset, doubled)))
        assert copy[3]["x"].tolist() == [6.0] * 5
        copy.dataset.close()

    def test_other_sequences(self) -> None:
        assert MapDataset([5, 6, 7], str).__getitems__([2, 0]) == ["7", "5"]


def batches(items: int = 21) -> sp.Pipeline:
    return sp.Pipeline(range(items), shuffle="global", seed=3).map(np.array).batch(2)


def found(loader: Any) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


def inline(pipe: sp.Pipeline, epochs: int = 1) -> list[list[int]]:
    with pipe.loader(executor="inline", epochs=epochs) as loader:
        return found(loader)


class TestIterableDataset:
    @pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are CPUs
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_the_stream_is_the_same(self, workers: int) -> None:
        data = IterableDataset(batches())
        loader = DataLoader(data, batch_size=None, num_workers=workers)
        assert len(loader) == 11
        assert found(loader) + found(loader) == inline(batches(), epochs=2)
        data.set_epoch(0)
        assert found(loader) == inline(batches())

    def test_workers_that_live_on(self) -> None:
        loader = DataLoader(
            IterableDataset(batches()), batch_size=None, num_workers=2, persistent_workers=True
        )
        assert found(loader) + found(loader) == inline(batches(), epochs=2)

    def test_streams_of_unknown_length(self) -> None:
        pipe = sp.Pipeline(range(30)).filter(lambda n: n % 3).map(np.array).batch(4)
        loader = DataLoader(IterableDataset(pipe), batch_size=None, num_workers=2)
        assert found(loader) == inline(pipe)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_ranks(self, workers: int) -> None:
        for rank in range(2):
            data = IterableDataset(batches(), rank=rank, world_size=2)
            loader = DataLoader(data, batch_size=None, num_workers=workers)
            assert len(loader) == 5
            assert found(loader) == inline(batches())[rank:10:2]

    def test_ranks_of_a_stream_of_unknown_length(self) -> None:
        pipe = sp.Pipeline(range(24)).filter(lambda n: n % 4).map(np.array).batch(2)
        data = IterableDataset(pipe, rank=1, world_size=2)
        loader = DataLoader(data, batch_size=None, num_workers=2)
        assert found(loader) == inline(pipe)[1:8:2]

    def test_half_a_pair(self) -> None:
        with pytest.raises(sp.GraphError, match="both"):
            IterableDataset(batches(), rank=1)


# torchdata calls something of torch that is deprecated.
@pytest.mark.filterwarnings("ignore:.set_vital. is deprecated")
class TestStateful:
    """Exact resume inside of torchdata's `StatefulDataLoader`."""

    @pytest.fixture
    def stateful(self) -> Any:
        module = pytest.importorskip(
            "torchdata.stateful_dataloader", reason="StatefulDataLoader is torchdata's"
        )
        return module.StatefulDataLoader

    @pytest.mark.parametrize(
        ("workers", "step"), [*((0, n) for n in (0, 1, 4, 10, 11, 13)), (2, 4), (2, 11), (2, 13)]
    )
    def test_resuming(self, stateful: Any, workers: int, step: int) -> None:
        expected = inline(batches(), epochs=3)

        def make() -> Any:
            return stateful(IterableDataset(batches()), batch_size=None, num_workers=workers)

        first = make()
        seen: list[list[int]] = []
        state = first.state_dict() if step == 0 else None
        while state is None:
            for batch in first:
                seen.append(batch.tolist())
                if len(seen) == step and step % 11:
                    state = first.state_dict()
                    break
            if len(seen) == step and state is None:
                state = first.state_dict()  # at the end of an epoch
        assert seen == expected[:step]
        del first
        second = make()
        second.load_state_dict(pickle.loads(pickle.dumps(state)))
        rest: list[list[int]] = []
        while len(rest) + step < len(expected):
            rest += found(second)
        assert rest == expected[step:]

    def test_another_states(self) -> None:
        items = iter(IterableDataset(batches()))
        with pytest.raises(sp.ResumeError, match="no state of an IterableDataset"):
            items.load_state_dict({"epoch": 1})
