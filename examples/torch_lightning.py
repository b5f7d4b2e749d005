"""Lightning with a pipeline as its data: a fit that stops in the middle of an epoch and goes on.

Finds a line from noisy measurements. The first trainer stops after 30 steps, with a checkpoint;
another one goes on from it with the batch that would have come next.

Run it: ``python examples/torch_lightning.py`` (needs lightning)
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

import splitpipe as sp
from splitpipe.integrations.lightning import PipelineDataModule

TRUTH = np.arange(1, 5, dtype=np.float32)


def measured(number: int) -> dict[str, Any]:
    """Make one measurement; the same one for this number, whoever makes it."""
    x = np.random.default_rng(number).normal(size=4).astype(np.float32)
    return {"x": x, "y": np.float32(x @ TRUTH), "number": number}


class Line(LightningModule):  # type: ignore[misc]  # its types are not followed
    """A line, and which measurements it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1, bias=False)
        self.seen: list[int] = []

    def training_step(self, batch: Any, number: int) -> Any:
        """Return the loss of one batch."""
        del number
        self.seen += batch["number"].tolist()
        return ((self.layer(batch["x"])[:, 0] - batch["y"]) ** 2).mean()

    def configure_optimizers(self) -> Any:
        """Return what makes the steps."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: str, *, steps: int = -1, checkpoint: Path | None = None) -> tuple[Line, Trainer]:
    """Fit for two epochs, or for some steps, from a checkpoint on if there is one."""
    pipe = sp.Pipeline(range(1000), shuffle="global", seed=0).map(measured).batch(20)
    torch.manual_seed(0)
    model = Line()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        max_steps=steps,
        default_root_dir=folder,
        enable_model_summary=False,
        **quiet,
    )
    data = PipelineDataModule(pipe, executor="thread")
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    return model, trainer


def main() -> None:
    """Fit in two parts."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "line.ckpt"
        first, trainer = fit(folder, steps=30)
        trainer.save_checkpoint(checkpoint)
        second, _ = fit(folder, checkpoint=checkpoint)
    print(f"{len(first.seen)} and then {len(second.seen)} measurements")
    epoch = first.seen + second.seen[: 1000 - len(first.seen)]
    print(f"each once in the first epoch: {sorted(epoch) == list(range(1000))}")
    print("found", np.round(second.layer.weight.detach().numpy()[0], 2))


if __name__ == "__main__":
    main()
