"""Pipelines in the Trainer of Hugging Face and in Accelerate: the stream, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="frameworks over PyTorch")
accelerate: Any = pytest.importorskip("accelerate", reason="needs Accelerate")

from splitpipe.integrations.torch import EpochLoader  # noqa: E402  they may be absent
from tests.integrations.torch.making import labels, numbers  # noqa: E402

STEPS = len(numbers())

# They are of other releases than torch.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    """What comes in two epochs."""
    with numbers().loader(executor="inline", epochs=2) as loader:
        return labels(loader)


class Model(torch.nn.Module):  # type: ignore[misc]
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen: list[list[int]] = []

    def forward(self, x: Any, label: Any) -> Any:
        self.seen.append(label.tolist())
        return {"loss": self.layer(x).mean() * 0}


class TestTrainer:
    def train(self, folder: Path, *, known: bool = True, **asked: Any) -> list[list[int]]:
        """Train; return what the steps had."""
        transformers: Any = pytest.importorskip("transformers", reason="needs transformers")
        resume = asked.pop("resume", None)
        options: dict[str, Any] = {"num_train_epochs": 2, "save_strategy": "no", **asked}
        loader = EpochLoader(numbers(known=known), executor="inline")

        class Trainer(transformers.Trainer):  # type: ignore[name-defined, misc]
            def get_train_dataloader(self) -> Any:
                return loader

        model = Model()
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), report_to=[], disable_tqdm=True, use_cpu=True, **options
        )
        with loader:
            Trainer(model, arguments).train(resume_from_checkpoint=resume)
        return model.seen

    def test_a_whole_training(self, tmp_path: Path, expected: list[list[int]]) -> None:
        assert self.train(tmp_path) == expected

    # Without a length all steps are one epoch to the Trainer.
    @pytest.mark.parametrize(("steps", "known"), [(5, False), (STEPS, True), (STEPS + 3, True)])
    def test_a_training_goes_on(
        self, tmp_path: Path, steps: int, known: bool, expected: list[list[int]]
    ) -> None:
        saved = {"save_strategy": "steps", "save_steps": steps, "known": known}
        if not known:
            saved |= {"num_train_epochs": 1, "max_steps": 2 * STEPS}  # as the Trainer wants it
        assert self.train(tmp_path, **{**saved, "max_steps": steps}) == expected[:steps]
        rest = self.train(tmp_path, **saved, resume=str(tmp_path / f"checkpoint-{steps}"))
        assert rest == expected[steps:]

    def test_gradients_are_accumulated(self, tmp_path: Path, expected: list[list[int]]) -> None:
        saved = {"save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": 5}
        assert self.train(tmp_path, **saved, max_steps=2) == expected[:10]
        rest = self.train(tmp_path, **saved, resume=str(tmp_path / "checkpoint-2"))
        assert rest == expected[10:]


class TestAccelerate:
    def test_it_is_left_as_it_is(self, expected: list[list[int]]) -> None:
        accelerator = accelerate.Accelerator(cpu=True)
        with EpochLoader(numbers(), executor="inline") as loader:
            model, prepared = accelerator.prepare(Model(), loader)
            assert prepared is loader
            for batch in prepared:
                model(**batch)
        assert model.seen == expected[:STEPS]

    def test_states(self, tmp_path: Path, expected: list[list[int]]) -> None:
        def accelerated(loader: EpochLoader) -> Any:
            accelerator = accelerate.Accelerator(cpu=True)
            accelerator.register_for_checkpointing(loader)
            return accelerator

        with EpochLoader(numbers(), executor="inline") as loader:
            accelerator = accelerated(loader)
            for step, _ in enumerate(loader):
                if step == 6:
                    accelerator.save_state(str(tmp_path))
                    break
        with EpochLoader(numbers(), executor="inline") as loader:
            accelerated(loader).load_state(str(tmp_path))
            assert labels(loader) + labels(loader) == expected[7:]

    def test_skipping(self, expected: list[list[int]]) -> None:
        accelerator = accelerate.Accelerator(cpu=True)
        made: list[int] = []

        def noted(one: dict[str, Any]) -> dict[str, Any]:
            made.append(one["label"])
            return one

        pipe = numbers(also=noted)
        with EpochLoader(pipe, executor="inline") as loader:
            loader.set_epoch(1)
            rest = accelerator.skip_first_batches(loader, 9)
            assert len(rest) == STEPS - 9
            assert labels(rest) == expected[STEPS + 9 :]
            assert len(made) == 4 * (STEPS - 9)  # what is left out is not made
            assert len(labels(loader)) == STEPS

    @pytest.mark.parametrize("known", [True, False])
    def test_the_end_of_an_epoch(self, tmp_path: Path, known: bool) -> None:
        state = accelerate.Accelerator(cpu=True).gradient_state

        def ends(batches: Any) -> list[bool]:
            on = state.in_dataloader
            ends = [state.end_of_dataloader for _ in batches]
            assert state.in_dataloader == on
            return ends

        with EpochLoader(numbers(known=known), executor="inline") as loader:
            last = [False] * (STEPS - 1) + [True]
            assert ends(loader) == last
            for _ in loader:
                with EpochLoader(numbers(), executor="inline") as inner:
                    assert ends(inner) == last
                assert not state.end_of_dataloader
                break
            assert not state.in_dataloader  # left early
            assert ends(loader) == last
            assert ends(accelerate.skip_first_batches(loader, 9)) == last[9:]
            for _ in loader:
                if state.end_of_dataloader:
                    torch.save(loader.state_dict(), tmp_path / "state.pt")
            following = labels(loader)
        with EpochLoader(numbers(known=known), executor="inline") as loader:
            loader.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
            assert [*labels(loader), *labels(loader)][:STEPS] == following

    def test_gradients_are_applied_at_the_end_of_an_epoch(self) -> None:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=5)
        model = Model()
        changed = []
        with EpochLoader(numbers(), executor="inline") as loader:
            model, loader = accelerator.prepare(model, loader)
            for _ in range(2):
                for batch in loader:
                    with accelerator.accumulate(model):
                        accelerator.backward(model(**batch)["loss"])
                    if accelerator.sync_gradients:
                        changed.append(len(model.seen))
        assert changed == [5, 10, 12, 17, 22, 24]

    def test_another_kind_of_pipeline(self) -> None:
        with EpochLoader(numbers(known=False), executor="inline") as loader:
            accelerator = accelerate.Accelerator(cpu=True)
            assert len(labels(accelerator.skip_first_batches(loader, 9))) == STEPS - 9
            with pytest.raises(TypeError):
                len(loader)


def test_a_state_is_plain(tmp_path: Path) -> None:
    with EpochLoader(numbers(), executor="inline") as loader:
        next(iter(loader))
        torch.save(loader.state_dict(), tmp_path / "state.pt")
    with EpochLoader(numbers(), executor="inline") as loader:
        loader.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert len(labels(loader)) == STEPS - 1
