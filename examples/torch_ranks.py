"""Two ranks of DistributedDataParallel, each with its part of one stream and the same steps.

Starts two processes as torchrun does, which find a line by stochastic gradient descent over gloo.
Each reads its own part of 1,001 records; the one that is left over is nobody's in that epoch.

Run it: ``python examples/torch_ranks.py`` (needs torch).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import splitpipe as sp

FEATURES = 4
RECORDS = 1001
RANKS = 2
TRUTH = np.arange(1, FEATURES + 1, dtype=np.float32)


def write(path: Path) -> None:
    """Store one record a measurement: the features, then the target."""
    rng = np.random.default_rng(0)
    with sp.DatasetWriter(path, {"x": sp.ndarray("float32", (FEATURES,)), "y": "float32"}) as w:
        for _ in range(RECORDS):
            x = rng.normal(size=FEATURES).astype(np.float32)
            w.write({"x": x, "y": float(x @ TRUTH)})


def rank_main(path: str, meeting: str = "env://") -> None:
    """What each rank does; which one it is stands in the environment."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(FEATURES, 1, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pipe = sp.Pipeline(sp.open_dataset(path), shuffle="global", seed=0).shard().batch(25)
    steps = 0
    with pipe.loader(epochs=3, executor="thread").to_torch() as loader:
        for batch in loader:
            loss = ((model(batch["x"])[:, 0] - batch["y"]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()  # waits for the other rank: both have the same number of steps
            optimizer.step()
            steps += 1
    assert steps == 3 * len(pipe)
    weights = model.module.weight.detach().numpy()[0]
    print(f"rank {rank}: {steps} steps, found {np.round(weights, 2)}", flush=True)
    dist.destroy_process_group()


def main() -> None:
    """Be the launcher: one process a rank."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "measurements")
        write(Path(path))
        ranks = [
            subprocess.Popen(
                [sys.executable, __file__, path, (Path(folder) / "meeting").as_uri()],
                env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(RANKS)},
            )
            for rank in range(RANKS)
        ]
        codes = [rank.wait() for rank in ranks]
    print("both ranks ended" if codes == [0] * RANKS else f"ended with {codes}")


if __name__ == "__main__":
    rank_main(*sys.argv[1:]) if "RANK" in os.environ else main()
