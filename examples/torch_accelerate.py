"""Accelerate with a pipeline: prepared, saved and loaded with everything else.

Finds a line; saves the state of all in the middle of an epoch, and goes on from it.

Run it: ``python examples/torch_accelerate.py`` (needs accelerate), or under ``accelerate launch``
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

import splitpipe as sp
from splitpipe.integrations.torch import EpochLoader

TRUTH = np.arange(1, 5, dtype=np.float32)
EPOCHS = 2


def measured(number: int) -> dict[str, Any]:
    """Make one measurement; the same one for this number, whoever makes it."""
    x = np.random.default_rng(number).normal(size=4).astype(np.float32)
    return {"x": x, "y": np.float32(x @ TRUTH), "number": number}


def train(folder: str, *, stop: int | None = None, go_on: bool = False) -> tuple[Any, list[int]]:
    """Train, from what was saved on if asked; save and leave after `stop` steps."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model: Any = torch.nn.Linear(4, 1, bias=False)
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
    pipe = sp.Pipeline(range(1000), shuffle="global", seed=0).map(measured)
    part = pipe.shard(accelerator.process_index, accelerator.num_processes).batch(20)
    seen: list[int] = []
    with EpochLoader(part, device=accelerator.device, executor="thread") as loader:
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        accelerator.register_for_checkpointing(loader)
        if go_on:
            accelerator.load_state(folder)
        for _ in range(EPOCHS):
            for batch in loader:
                loss = ((model(batch["x"])[:, 0] - batch["y"]) ** 2).mean()
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                seen += batch["number"].tolist()
                if stop is not None and len(seen) == 20 * stop:
                    accelerator.save_state(folder)
                    return model, seen
    return model, seen


def main() -> None:
    """Train at one go, and in two parts."""
    with tempfile.TemporaryDirectory() as folder:
        at_one_go, everything = train(folder)
        _, first = train(folder, stop=30)
        gone_on, rest = train(folder, go_on=True)
    print(f"{len(first)} and then {len(rest)} measurements")
    print(f"the same stream: {first + rest == everything}")
    print(f"the same line: {torch.equal(at_one_go.weight, gone_on.weight)}")
    print("found", np.round(gone_on.weight.detach().numpy()[0], 2))


if __name__ == "__main__":
    main()
