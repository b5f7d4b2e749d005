"""Training in PyTorch, killed in the middle of an epoch and gone on with at the next batch.

Stores noisy pictures of four kinds, trains a small network on tensors that lie in shared memory,
stops in the middle of an epoch, and goes on from a checkpoint of model, optimizer and data: what
comes out is the very same network that a training without a stop gives.

Run it: ``python examples/torch_training.py`` (needs torch)
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import splitpipe as sp

RECORDS = 2000
EPOCHS = 2
SIDE = 12


def write(path: Path) -> None:
    """Store pictures with a bright quarter, and which one it is."""
    rng = np.random.default_rng(0)
    schema = {"image": sp.ndarray("uint8", (SIDE, SIDE)), "label": "int64"}
    with sp.DatasetWriter(path, schema, bins=4) as writer:
        for number in range(RECORDS):
            image = rng.integers(0, 200, (SIDE, SIDE), np.uint8)
            row, column = (number % 4) // 2 * SIDE // 2, (number % 2) * SIDE // 2
            image[row : row + SIDE // 2, column : column + SIDE // 2] += 55
            writer.write({"image": image, "label": number % 4})


def flipped(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Runs in a worker process; the same pixels are dropped whoever does it, and whenever."""
    image = record["image"] * rng.integers(0, 2, record["image"].shape, np.uint8)
    return {"image": image.astype(np.float32) / 255, "label": record["label"]}


def made(path: Path) -> tuple[torch.nn.Module, torch.optim.Optimizer, sp.Pipeline]:
    """Return a fresh network and what it is trained on."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    pipe = sp.Pipeline(sp.open_dataset(path), shuffle="global", seed=0)
    randomly: Any = flipped  # its `rng` comes from the pipeline
    return model, optimizer, pipe.map(randomly, workers=1).batch(50)


def train(path: Path, *, saved: Path | None = None, stop: int | None = None) -> Any:
    """Train, from a checkpoint on where there is one; save one and leave after `stop` steps."""
    model, optimizer, pipe = made(path)
    state = None
    if saved is not None and saved.exists():
        checkpoint = torch.load(saved, weights_only=True)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        state = checkpoint["data"]
    loss = right = torch.zeros(())
    with pipe.loader(epochs=EPOCHS, state=state).to_torch() as loader:
        for step, batch in enumerate(loader, start=1):
            scores = model(batch["image"])
            loss = torch.nn.functional.cross_entropy(scores, batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == stop and saved is not None:
                parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**parts, "data": loader.state_dict()}, saved)
                print(f"stopped in epoch {loader.epoch} after step {step}")
                return None
            right = (scores.argmax(1) == batch["label"]).float().mean()
    print(f"epoch {loader.epoch} ended: loss {loss.item():.2f}, {right:.0%} of a batch right")
    return [parameter.detach() for parameter in model.parameters()]


def main() -> None:
    """Train twice: at one go, and with a stop in between."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures"
        write(path)
        at_one_go = train(path)
        checkpoint = Path(folder) / "checkpoint.pt"
        train(path, saved=checkpoint, stop=57)
        gone_on = train(path, saved=checkpoint)
    same = all(torch.equal(a, b) for a, b in zip(at_one_go, gone_on, strict=True))
    print(f"the same network, to the bit: {same}")


# Worker processes import this file again: without this line, each would train as well.
if __name__ == "__main__":
    main()
