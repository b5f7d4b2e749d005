"""One rank of a training with a framework, over gloo; run by `test_ranks`.

It trains for two epochs, or until some steps are done and saved, or goes on from there; and prints
which items its steps had, in order, and after which of them the weights were changed.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

import splitpipe as sp
from splitpipe.integrations.torch import EpochLoader
from tests.integrations.torch.making import BATCH, small

ITEMS = 56
EPOCHS = 2
RANK = int(os.environ.get("RANK", "0"))  # it is imported for its examples, too
RANKS = int(os.environ.get("WORLD_SIZE", "1"))


def pipeline(rank: int = RANK, ranks: int = RANKS) -> sp.Pipeline:
    """Shuffled batches of one rank: 7 in an epoch, so that pairs of them leave one over."""
    pipe = sp.Pipeline(range(ITEMS), shuffle="global", seed=3).shard(rank, ranks)
    return pipe.map(small, workers=1, executor="thread").batch(BATCH)


class Model(torch.nn.Module):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen: list[list[int]] = []

    def forward(self, x: Any, label: Any) -> Any:
        self.seen.append(label.tolist())
        return {"loss": (self.layer(x) / 60).mean()}


def with_accelerate(folder: Path, stop: int | None, *, resume: bool) -> dict[str, Any]:
    """A loop of one's own, which accumulates the gradients of two steps."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = Model()
    loader = EpochLoader(pipeline(accelerator.process_index, accelerator.num_processes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.register_for_checkpointing(loader)
    if resume:
        accelerator.load_state(str(folder))
    changed: list[int] = []
    with loader:
        while loader.loader.epoch < EPOCHS - 1 and len(model.seen) != stop:
            for batch in loader:
                with accelerator.accumulate(wrapped):
                    accelerator.backward(wrapped(**batch)["loss"])
                    optimizer.step()
                    optimizer.zero_grad()
                if accelerator.sync_gradients:
                    changed.append(len(model.seen))
                if len(model.seen) == stop:
                    accelerator.save_state(str(folder))
                    break
    return {"seen": model.seen, "changed": changed, "weight": model.layer.weight.flatten().tolist()}


def with_trainer(folder: Path, stop: int | None, *, resume: bool) -> dict[str, Any]:
    """The Trainer of Hugging Face, which accumulates the gradients of two steps."""
    import transformers

    loader = EpochLoader(pipeline())

    class Trainer(transformers.Trainer):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            return loader

    model = Model()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        num_train_epochs=EPOCHS,
        gradient_accumulation_steps=2,
        save_strategy="steps",
        save_steps=3,  # of the weights
        lr_scheduler_type="constant",  # or it would depend on `max_steps`
        max_steps=-1 if stop is None else stop // 2,
    )
    checkpoint = str(folder / "checkpoint-3") if resume else None
    with loader:
        Trainer(model, arguments).train(resume_from_checkpoint=checkpoint)
    return {"seen": model.seen, "weight": model.layer.weight.flatten().tolist()}


def with_lightning(folder: Path, stop: int | None, *, resume: bool) -> dict[str, Any]:
    """Lightning, whose trainer says which rank this is."""
    import lightning.pytorch as lightning

    from splitpipe.integrations.lightning import PipelineDataModule

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def training_step(self, batch: Any, number: int) -> Any:
            return self.model(**batch)["loss"]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Stop(lightning.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if len(module.model.seen) == stop:
                trainer.save_checkpoint(folder / "checkpoint")
                trainer.should_stop = True

    trainer = lightning.Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=RANKS,
        default_root_dir=folder,
        max_epochs=EPOCHS,
        min_epochs=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Stop()],
    )
    module = Module()
    data = PipelineDataModule(pipeline, val=None)
    path = folder / "checkpoint" if resume else None
    trainer.fit(module, datamodule=data, ckpt_path=path)
    return {"seen": module.model.seen, "weight": module.model.layer.weight.flatten().tolist()}


def main() -> None:
    """Be the rank that the environment says."""
    warnings.simplefilter("ignore")
    framework, folder, stop, resume = sys.argv[1:]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train = {
        "accelerate": with_accelerate,
        "trainer": with_trainer,
        "lightning": with_lightning,
    }[framework]
    told = train(Path(folder), int(stop) or None, resume=bool(int(resume)))
    (Path(folder) / f"told-{RANK}.json").write_text(json.dumps(told))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
