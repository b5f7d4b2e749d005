"""A training loop in JAX, fed by worker processes, on as many devices as there are.

Measurements of an unknown line lie in a dataset; a worker batches them, `to_jax` places batches on
the devices while others are computed with, each device a part of the rows. The run is stopped in
the middle and goes on at the exact batch.

Run it: ``python examples/jax_training.py``. It needs ``pip install 'splitpipe[jax]'``.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import splitpipe as sp
from splitpipe.integrations.jax import to_jax

FEATURES = 4
RECORDS = 12_800
BATCH = 128
TRUTH = np.arange(1, FEATURES + 1, dtype=np.float32)


def write(path: Path) -> None:
    """Store one record a measurement."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(RECORDS, FEATURES)).astype(np.float32)
    y = (x @ TRUTH + rng.normal(scale=0.1, size=RECORDS)).astype(np.float32)
    with sp.DatasetWriter(path, bins=8) as writer:
        writer.write_many({"x": one, "y": other} for one, other in zip(x, y, strict=True))


def train(pipe: sp.Pipeline, weights: Any, steps: int, state: Any = None) -> tuple[Any, Any, int]:
    """Descend for some steps; return the weights, where the data is, and the steps made."""
    jax: Any = import_module("jax")
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

    def descend(weights: Any, batch: Any) -> tuple[Any, Any]:
        def loss_of(weights: Any) -> Any:
            return ((batch["x"] @ weights - batch["y"]) ** 2).mean()

        loss, slope = jax.value_and_grad(loss_of)(weights)
        return weights - 0.05 * slope, loss

    step = jax.jit(descend)
    made = 0
    with to_jax(pipe.loader(epochs=2, state=state), sharding=rows) as batches:
        for batch in batches:
            weights, loss = step(weights, batch)
            # JAX only queues a step, and keeps the batches of all that wait.
            loss.block_until_ready()
            if made % 50 == 0:
                print(f"step {made:3d}  loss {float(loss):8.4f}")
            made += 1
            if made == steps:
                break
        return weights, batches.state_dict(), made


def main() -> None:
    """Train in two runs, the second from the first's state."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "measurements")
        dataset = sp.open_dataset(Path(folder) / "measurements")
        # A batch that is not full cannot lie on all devices.
        pipe = sp.Pipeline(dataset, shuffle="global", seed=0).batch(
            BATCH, drop_last=True, workers=1
        )
        weights, state, made = train(pipe, np.zeros(FEATURES, np.float32), steps=60)
        print(f"went on at step {made}")
        weights, _, more = train(pipe, weights, steps=1000, state=state)
        assert made + more == 2 * RECORDS // BATCH
    print("found", np.round(np.asarray(weights), 1), "where the truth is", TRUTH)


# Worker processes import this file again: without this line, each would train as well.
if __name__ == "__main__":
    main()
