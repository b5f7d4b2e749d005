"""Pipelines in Lightning: the stream of the pipeline, exactly, also when a fit is gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

lightning: Any = pytest.importorskip("lightning.pytorch", reason="needs Lightning")

import torch  # noqa: E402  Lightning may be absent

from splitpipe.integrations.lightning import PipelineDataModule  # noqa: E402
from tests.integrations.torch.making import BATCH, labels, numbers  # noqa: E402

STEPS = len(numbers())

# Lightning is of another release than torch.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def inline(*, known: bool = True) -> list[list[int]]:
    """What comes in two epochs."""
    with numbers(known=known).loader(executor="inline", epochs=2) as loader:
        return labels(loader)


class Model(lightning.LightningModule):  # type: ignore[misc]
    """Notes what its steps are given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen: list[list[int]] = []

    def training_step(self, batch: Any, number: int) -> Any:
        self.seen.append(batch["label"].tolist())
        return self.layer(batch["x"]).mean() * 0

    def validation_step(self, batch: Any, number: int) -> None:
        assert batch["x"].shape == (BATCH, 3)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class StopAfter(lightning.Callback):  # type: ignore[misc]
    """Ends a fit after some steps, with a checkpoint of that moment."""

    def __init__(self, steps: int, path: Path) -> None:
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer: Any, model: Any, *_: Any) -> None:
        if len(model.seen) == self.steps:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


class SaveEpoch(lightning.Callback):  # type: ignore[misc]
    """Saves a checkpoint where an epoch ends, and ends the fit there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
        trainer.save_checkpoint(self.path)
        raise KeyboardInterrupt


def fit(folder: Path, *callbacks: Any, known: bool = True, **options: Any) -> list[list[int]]:
    """Fit for two epochs; return what the steps had."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    model = Model()
    data = PipelineDataModule(numbers(known=known), val=numbers(), executor="inline")
    try:
        trainer.fit(model, datamodule=data, **options)
    except SystemExit:
        assert callbacks  # it takes a KeyboardInterrupt for a wish to leave
    return model.seen


def test_a_whole_fit(tmp_path: Path) -> None:
    assert fit(tmp_path) == inline()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("steps", [5, STEPS, STEPS + 3])
def test_a_fit_goes_on(tmp_path: Path, known: bool, steps: int) -> None:
    path = tmp_path / "checkpoint.ckpt"
    expected = inline(known=known)
    assert fit(tmp_path, StopAfter(steps, path), known=known) == expected[:steps]
    assert fit(tmp_path, known=known, ckpt_path=path) == expected[steps:]


@pytest.mark.parametrize("known", [True, False])
def test_a_checkpoint_at_the_end_of_an_epoch(tmp_path: Path, known: bool) -> None:
    path = tmp_path / "checkpoint.ckpt"
    expected = inline(known=known)
    assert fit(tmp_path, SaveEpoch(path), known=known) == expected[:STEPS]
    assert fit(tmp_path, known=known, ckpt_path=path) == expected[STEPS:]
