"""Frameworks with two ranks over gloo: equal steps, each item once, and going on.

``pytest tests/integrations/torch/test_ranks.py`` runs all; ``-m "not long"`` leaves out Lightning
and the Trainer of Hugging Face.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp

pytest.importorskip("torch", reason="frameworks over PyTorch")

from tests.integrations.torch.making import BATCH, labels, small

RANKS = 2
ITEMS = 56
STEPS = 7
"""Of an epoch: 28 items of a rank, 4 a batch."""
STOP = 6

_ROOT = Path(__file__).resolve().parents[3]


def expected() -> list[list[list[int]]]:
    """What each rank gets in two epochs."""
    every = []
    for rank in range(RANKS):
        pipe = sp.Pipeline(range(ITEMS), shuffle="global", seed=3).shard(rank, RANKS)
        with pipe.map(small).batch(BATCH).loader(executor="inline", epochs=2) as loader:
            every.append(labels(loader))
    return every


def train(
    framework: str, folder: Path, *, stop: int = 0, resume: bool = False
) -> list[dict[str, Any]]:
    """Train on two ranks; return what each of them told."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = [folder / f"told-{rank}.json" for rank in range(RANKS)]
    known = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, "-m", "tests.integrations.torch.ranks_program", framework]
    words += [str(folder), str(stop), str(int(resume))]
    ranks = [
        subprocess.Popen(
            words,
            env={**known, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        said = [rank.communicate(timeout=500)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0] * RANKS, "\n".join(said)
    return [json.loads(path.read_text()) for path in told]


def judge(framework: str, folder: Path) -> list[dict[str, Any]]:
    """Train in two parts: each rank has its own stream, and goes on; return what they told."""
    pytest.importorskip({"trainer": "transformers"}.get(framework, framework), reason="needs it")
    every = expected()
    assert sorted(chain(*chain(*(one[:STEPS] for one in every)))) == list(range(ITEMS))
    first = train(framework, folder, stop=STOP)
    assert [one["seen"] for one in first] == [one[:STOP] for one in every]
    rest = train(framework, folder, resume=True)
    assert [one["seen"] for one in rest] == [one[STOP:] for one in every]
    assert rest[0]["weight"] == rest[1]["weight"]  # the ranks were in step
    return [*first, *rest]


@pytest.mark.deadline(300)
def test_accelerate(tmp_path: Path) -> None:
    told = judge("accelerate", tmp_path)
    # Gradients of two steps are applied, and those of the one that an epoch ends with.
    assert [one["changed"] for one in told] == [[2, 4, 6]] * RANKS + [[1, 3, 5, 7, 8]] * RANKS


@pytest.mark.long
@pytest.mark.deadline(600)
@pytest.mark.parametrize("framework", ["trainer", "lightning"])
def test_trainers(tmp_path: Path, framework: str) -> None:
    """``pytest -m long tests/integrations/torch/test_ranks.py``."""
    told = judge(framework, tmp_path)
    (tmp_path / "whole").mkdir()
    whole = train(framework, tmp_path / "whole")
    assert [one["seen"] for one in whole] == expected()
    assert whole[0]["weight"] == pytest.approx(told[-1]["weight"])
