"""Loaders of tensors: the stream of the loader, whatever is on its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="tensors are those of PyTorch")

import splitpipe as sp  # noqa: E402  torch may be absent
from splitpipe.integrations.torch import EpochLoader  # noqa: E402
from tests.integrations.torch.making import BATCH, ITEMS, images, labels  # noqa: E402

STEPS = ITEMS // BATCH

no_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine"
)


def stream(*, epochs: int = 1) -> list[list[int]]:
    """What comes, by definition."""
    with images().loader(executor="inline", epochs=epochs) as loader:
        return labels(loader)


@pytest.fixture(scope="module")
def two_epochs() -> list[list[int]]:
    return stream(epochs=2)


@pytest.mark.parametrize("ahead", [0, 1, 3])
class TestAhead:
    """Batches that are under way are not given: nobody sees them."""

    def loader(self, ahead: int, **options: Any) -> Any:
        return images().loader(executor="inline", epochs=2, **options).to_torch(ahead=ahead)

    def test_the_stream(self, ahead: int, two_epochs: list[list[int]]) -> None:
        with self.loader(ahead) as loader:
            assert labels(loader) == two_epochs
            assert list(loader) == []

    def test_epochs(self, ahead: int, two_epochs: list[list[int]]) -> None:
        with self.loader(ahead) as loader:
            assert loader.epoch == -1
            found = []
            for epoch, items in enumerate(loader.by_epoch()):
                for batch in items:
                    found.append(batch["label"].tolist())
                    assert loader.epoch == epoch
        assert found == two_epochs

    def test_the_epoch_is_that_of_the_batch(self, ahead: int) -> None:
        with self.loader(ahead) as loader:
            epochs = [(next(loader), loader.epoch)[1] for _ in range(2 * STEPS)]
        assert epochs == [0] * STEPS + [1] * STEPS

    def test_an_epoch_that_is_left(self, ahead: int, two_epochs: list[list[int]]) -> None:
        with self.loader(ahead) as loader:
            first, second = loader.by_epoch(), []
            assert labels([next(next(first)) for _ in range(1)]) == two_epochs[:1]
            second = labels(next(first))
        assert second == two_epochs[STEPS:]

    @pytest.mark.parametrize("step", [0, 1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS])
    def test_states(self, ahead: int, step: int, two_epochs: list[list[int]]) -> None:
        with self.loader(ahead) as loader:
            for _ in range(step):
                next(loader)
            state = loader.state_dict()
            assert labels(loader) == two_epochs[step:]
        with self.loader(ahead, state=state) as loader:
            assert labels(loader) == two_epochs[step:]
        with self.loader(ahead) as loader:
            next(loader)
            loader.load_state_dict(state)
            assert labels(loader) == two_epochs[step:]

    def test_moving_about(self, ahead: int, two_epochs: list[list[int]]) -> None:
        with self.loader(ahead) as loader:
            next(loader)
            loader.seek(5)
            assert labels([next(loader)]) == two_epochs[5:6]
            loader.skip_steps(7, 9)
            assert labels(loader) == [two_epochs[6], *two_epochs[9:]]

    def test_an_error_comes_at_its_place(self, ahead: int) -> None:
        def fails(number: int) -> np.ndarray[Any, Any]:
            if number == 6:
                raise ZeroDivisionError("six")
            return np.array(number)

        with sp.Pipeline(range(9)).map(fails).loader(executor="inline") as plain:
            loader = plain.to_torch(ahead=ahead)
            assert [int(next(loader)) for _ in range(6)] == list(range(6))
            with pytest.raises(ZeroDivisionError, match="six"):
                next(loader)
            with pytest.raises(sp.PipelineError, match="ended with ZeroDivisionError"):
                next(loader)


def test_a_stream_without_states_can_still_be_under_way() -> None:
    pipe = sp.Pipeline(range(8)).map(np.array, workers=2, ordered=False)
    with pipe.loader(executor="thread").to_torch(ahead=1) as loader:
        assert sorted(int(one) for one in loader) == list(range(8))


@pytest.mark.parametrize("asked", [{"device": "cuda"}, {"pin_memory": True}])
def test_without_a_gpu_it_says_so(asked: dict[str, Any]) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch finds a CUDA device on this machine")
    with (
        sp.Pipeline(range(2)).loader(executor="inline") as loader,
        pytest.raises(sp.GraphError, match="no CUDA device here"),
    ):
        loader.to_torch(**asked)


def test_an_unknown_device() -> None:
    with (
        sp.Pipeline(range(2)).loader(executor="inline") as loader,
        pytest.raises(sp.GraphError, match="device='nowhere'"),
    ):
        loader.to_torch("nowhere")


def test_another_device() -> None:
    with images(items=4).loader(executor="inline").to_torch("meta") as loader:
        (batch,) = loader
    assert batch["image"].device.type == "meta"
    assert batch["image"].shape == (4, 40, 40)


@no_gpu
class TestCuda:
    @pytest.mark.parametrize("pin_memory", [None, False])
    def test_the_stream(self, pin_memory: bool | None, two_epochs: list[list[int]]) -> None:
        pipe = images(workers=1)
        kept = []
        with pipe.loader(epochs=2).to_torch("cuda", pin_memory=pin_memory) as loader:
            for batch in loader:
                assert batch["image"].is_cuda
                kept.append((batch["image"][:, 3, 3].clone(), batch["label"]))
        torch.cuda.synchronize()
        assert [label.tolist() for _, label in kept] == two_epochs
        assert all((image == label).all() for image, label in kept)

    def test_states(self, two_epochs: list[list[int]]) -> None:
        with images(workers=1).loader(epochs=2).to_torch("cuda") as loader:
            for _ in range(5):
                next(loader)
            state = loader.state_dict()
        with images(workers=1).loader(epochs=2, state=state).to_torch("cuda") as loader:
            assert labels(loader) == two_epochs[5:]

    def test_memory_is_not_reused_under_the_computing(self) -> None:
        with images(workers=1, items=480).loader().to_torch("cuda") as loader:
            sums = []
            for batch in loader:
                slow = batch["image"].sum((1, 2)) * 1.0
                for _ in range(20):  # the device is behind the loop
                    slow = slow + torch.zeros(1 << 20, device="cuda").sum()
                sums.append((slow / 1600, batch["label"]))
                del batch
        assert all(torch.equal(mean, label.float()) for mean, label in sums)

    def test_pinned_memory(self) -> None:
        with images(workers=1).loader().to_torch(pin_memory=True) as loader:
            assert all(batch["image"].is_pinned() for batch in loader)


class TestEpochLoader:
    @pytest.fixture
    def loader(self) -> Iterator[EpochLoader]:
        with EpochLoader(images(), executor="inline") as loader:
            yield loader

    def test_an_iteration_is_an_epoch(
        self, loader: EpochLoader, two_epochs: list[list[int]]
    ) -> None:
        assert len(loader) == STEPS
        assert labels(loader) + labels(loader) == two_epochs

    def test_an_epoch_that_is_left(self, loader: EpochLoader, two_epochs: list[list[int]]) -> None:
        for _ in loader:
            break
        assert labels(loader) == two_epochs[STEPS:]

    def test_an_iteration_of_which_nothing_was_taken(
        self, loader: EpochLoader, two_epochs: list[list[int]]
    ) -> None:
        iter(loader)
        assert labels(iter(loader)) == two_epochs[:STEPS]

    @pytest.mark.parametrize("step", [0, 1, STEPS])
    def test_the_rest(self, loader: EpochLoader, step: int, two_epochs: list[list[int]]) -> None:
        assert labels(loader.rest(step)) + labels(loader) == two_epochs[step:]

    def test_it_begins_with_nothing_running(self) -> None:
        with EpochLoader(images(workers=2)) as loader:
            assert "EpochLoader(" in repr(loader)
        loader.close()

    @pytest.mark.parametrize("taken_ahead", [0, 1])
    @pytest.mark.parametrize("step", [0, 1, 5, STEPS - 1])
    def test_states(self, taken_ahead: int, step: int, two_epochs: list[list[int]]) -> None:
        with EpochLoader(images(), executor="inline", taken_ahead=taken_ahead) as loader:
            items = iter(loader)
            for _ in range(step + taken_ahead):
                next(items)
            state = loader.state_dict()
        with EpochLoader(images(), executor="inline") as loader:
            loader.load_state_dict(state)
            loader.set_epoch(0)  # as frameworks do: it is in this one already
            assert loader.state_dict()["items"] == step
            assert labels(loader) + labels(loader) == two_epochs[step:]

    @pytest.mark.parametrize("taken_ahead", [0, 1])
    def test_at_the_end_of_an_epoch(self, taken_ahead: int, two_epochs: list[list[int]]) -> None:
        with EpochLoader(images(), executor="inline", taken_ahead=taken_ahead) as loader:
            labels(loader)
            state = loader.state_dict()
            labels(loader)
            loader.load_state_dict(state)
            assert labels(loader) == two_epochs[STEPS:]

    def test_setting_the_epoch(self, loader: EpochLoader, two_epochs: list[list[int]]) -> None:
        loader.set_epoch(1)
        assert labels(loader) == two_epochs[STEPS:]
        loader.set_epoch(0)
        assert labels(loader) + labels(loader) == two_epochs

    def test_the_state_of_another_rank_is_a_place(self) -> None:
        def part(rank: int, world: int = 2) -> EpochLoader:
            pipe = sp.Pipeline(range(40), shuffle="global", seed=1).shard(rank, world)
            return EpochLoader(pipe.map(np.array).batch(2), executor="inline")

        def found(loader: EpochLoader) -> list[list[int]]:
            return [batch.tolist() for batch in loader]

        with part(0) as zero:
            for step, _ in enumerate(zero):
                if step == 3:
                    break
            state = zero.state_dict()
        with part(1) as one, part(1) as same:
            one.load_state_dict(state)
            assert found(one) == found(same)[4:]
        with part(1, 4) as other, pytest.raises(sp.ResumeError, match="redistribute"):
            other.load_state_dict(state)

    def test_another_graph_is_refused(self, loader: EpochLoader) -> None:
        with (
            EpochLoader(images(items=8), executor="inline") as other,
            pytest.raises(sp.ResumeError, match="length"),
        ):
            other.load_state_dict(loader.state_dict())

    def test_closed(self, loader: EpochLoader) -> None:
        next(iter(loader))
        loader.close()
        loader.close()
        with pytest.raises(sp.PipelineError, match="was closed"):
            next(iter(loader))

    def test_workers_live_on(self) -> None:
        with EpochLoader(images(workers=1)) as loader:
            first = labels(loader)
            assert len(first) == STEPS
            assert len(labels(loader)) == STEPS
            assert len(loader.loader.stats()) == 2

    def test_letting_go_of_it_ends_it(self) -> None:
        loader = EpochLoader(images(workers=1))
        next(iter(loader))
        del loader  # the leak check of the suite sees to the rest
