"""The Trainer of Hugging Face with a pipeline as its data, gone on with from a checkpoint.

Trains a little model to continue sequences. It stops in the middle of an epoch; the Trainer that
goes on leaves out the batches that were had, and none of them is made again.

Run it: ``python examples/torch_trainer.py`` (needs transformers and accelerate)
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

import splitpipe as sp
from splitpipe.integrations.torch import EpochLoader

WORDS = 16
LENGTH = 12


def sequence(number: int) -> dict[str, Any]:
    """A sequence that counts up, and what follows each word in it."""
    words = (number + np.arange(LENGTH + 1)) % WORDS
    return {"input_ids": words[:-1], "labels": words[1:]}


class Model(torch.nn.Module):  # type: ignore[misc]  # torch's types are not followed
    """Guesses the next word from the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.guess = torch.nn.Embedding(WORDS, WORDS)
        self.steps = 0

    def forward(self, input_ids: Any, labels: Any) -> Any:
        """Return the loss, as a Trainer wants it."""
        self.steps += 1
        scores = self.guess(input_ids)
        return {"loss": torch.nn.functional.cross_entropy(scores.transpose(1, 2), labels)}


class PipelineTrainer(Trainer):
    """A Trainer whose batches come from a pipeline."""

    def get_train_dataloader(self) -> Any:
        """Return an epoch for each iteration."""
        pipe = sp.Pipeline(range(800), shuffle="global", seed=0).map(sequence).batch(20)
        return EpochLoader(pipe, executor="thread")


def train(folder: str, *, steps: int = -1, go_on: bool = False) -> Model:
    """Train for three epochs, or for some steps; a checkpoint is saved every 50."""
    torch.manual_seed(0)
    model = Model()
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=3,
        max_steps=steps,
        save_steps=50,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=True,
    )
    PipelineTrainer(model, arguments).train(resume_from_checkpoint=go_on)
    return model


def main() -> None:
    """Train at one go, and in two parts."""
    with tempfile.TemporaryDirectory() as folder:
        at_one_go = train(f"{folder}/a")
        train(f"{folder}/b", steps=50)
        gone_on = train(f"{folder}/b", go_on=True)
    print(f"{at_one_go.steps} steps at one go, {gone_on.steps} behind the checkpoint")
    print(f"the same model: {torch.equal(at_one_go.guess.weight, gone_on.guess.weight)}")
    right = at_one_go.guess.weight.argmax(1) == (torch.arange(WORDS) + 1) % WORDS
    print(f"knows what follows: {bool(right.all())}")


if __name__ == "__main__":
    main()
