"""A training loop in numpy, fed by worker processes.

Writes 20,000 noisy measurements of an unknown line into a dataset, reads them back shuffled, and
finds the line by stochastic gradient descent. Everything a real loop has is here: records on disk,
a decode step in workers, batches, epochs, and the statistics that tell whether the loop waits.

Run it: ``python examples/numpy_training_loop.py``
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

import splitpipe as sp

FEATURES = 8
RECORDS = 20_000
TRUTH = np.arange(1, FEATURES + 1, dtype=np.float32)


def write(path: Path) -> None:
    """Store one record a measurement: the features and then the target, as float32."""
    rng = np.random.default_rng(0)
    with sp.DatasetWriter(path, bins=16) as writer:
        for _ in range(RECORDS):
            x = rng.normal(size=FEATURES).astype(np.float32)
            y = x @ TRUTH + rng.normal(scale=0.1)
            writer.write(np.append(x, np.float32(y)).tobytes())


def decode(record: bytes) -> npt.NDArray[np.float32]:
    """Runs in a worker process; the rows come back stacked into batches."""
    return np.frombuffer(record, dtype=np.float32)


def main() -> None:
    """Train for three epochs and say what was found."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measurements"
        write(path)
        dataset = sp.open_dataset(path)
        pipe = sp.Pipeline(dataset, shuffle="binwise", seed=0).map(decode, workers=2).batch(100)

        weights = np.zeros(FEATURES, dtype=np.float32)
        with pipe.loader(prefetch=4, epochs=3) as loader:
            for step, batch in enumerate(loader):
                x, y = batch[:, :FEATURES], batch[:, FEATURES]
                error = x @ weights - y
                weights -= 0.05 * (x.T @ error) / len(batch)
                if step % 100 == 0:
                    print(f"step {step:3d}  mean squared error {np.mean(error**2):8.4f}")
            for task in loader.stats():
                print(
                    f"{task.name}: {task.items_out} items out, busy {task.busy_s:.2f} s, waited "
                    f"{task.wait_input_s:.2f} s for input, {task.wait_output_s:.2f} s for output"
                )

    print("found", np.round(weights, 2), "where the truth is", TRUTH)
    assert np.allclose(weights, TRUTH, atol=0.05)


# Worker processes import this file again: without this line, each would train as well.
if __name__ == "__main__":
    main()
