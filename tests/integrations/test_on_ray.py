"""Ray Data and Ray Train on a cluster of this machine: what is read, written and trained with.

One cluster for all; what can be shown without one is in ``test_ray_data`` and ``test_ray_train``.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.dataset import Dataset
from splitpipe.schema import Schema, ndarray

ray = pytest.importorskip("ray", reason="it is Ray that is spoken to here")
pytest.importorskip("ray.data", reason="it is Ray Data that is spoken to here")

pytestmark = [
    # Ray's own context sets what Ray has given up, and its clients are not closed by themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.leaks("Ray keeps threads and connections of its own until it is shut down"),
    pytest.mark.deadline(600),
]

SCHEMA = Schema({"n": "int64", "text": "str", "picture": ndarray("uint8", (2, 3))})
COUNT = 60


def record(n: int) -> dict[str, Any]:
    return {"n": n, "text": None if n % 5 == 0 else f"é{n}", "picture": np.full((2, 3), n, "u1")}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Sockets of Ray have long names: a short folder.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 << 20,
            _temp_dir=folder,
            log_to_driver=False,
        )
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        try:
            yield
        finally:
            ray.shutdown()


@pytest.fixture
def dataset(cluster: None, tmp_path: Path) -> Iterator[Dataset]:
    with sp.DatasetWriter(tmp_path / "source", SCHEMA, bins=4) as writer:
        writer.write_many(record(n) for n in range(COUNT))
    with sp.open_dataset(tmp_path / "source") as opened:
        yield opened


def numbers(path: Path) -> list[int]:
    with sp.open_dataset(path) as found:
        return [one["n"] for one in found]


def test_read_map_write_while_workers_die(dataset: Dataset, tmp_path: Path) -> None:
    """A task whose worker dies, half way and behind its end, is made again and doubles nothing."""
    from splitpipe.integrations.ray_data import Datasink, from_ray

    marks = tmp_path / "marks"
    marks.mkdir()

    def die(mark: str) -> None:
        try:
            os.close(os.open(marks / mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os._exit(1)

    def tripled(batch: dict[str, Any]) -> dict[str, Any]:
        if 35 in batch["n"]:
            die("in a map")
        return {**batch, "n": batch["n"] * 3}

    class Deadly(Datasink):
        def write(self, blocks: Any, ctx: Any) -> Any:
            part = super().write(blocks, ctx)
            if ctx.task_idx == 1:
                die("behind the write")
            return part

    source = dataset.to_ray(ray_options={"override_num_blocks": 4})
    assert source.count() == COUNT
    source.map_batches(tripled, batch_size=5).write_datasink(Deadly(tmp_path / "out", SCHEMA))
    assert sorted(os.listdir(marks)) == ["behind the write", "in a map"]
    assert numbers(tmp_path / "out") == [3 * n for n in range(COUNT)]
    assert sp.check_dataset(tmp_path / "out").ok
    assert sorted(os.listdir(tmp_path)) == ["marks", "out", "source"]

    def bad(batch: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("no batch of mine")

    with pytest.raises(Exception, match="no batch of mine"):
        from_ray(source.map_batches(bad), tmp_path / "failed", SCHEMA)
    assert sorted(os.listdir(tmp_path)) == ["marks", "out", "source"]


def test_a_shuffled_read_of_some_columns(dataset: Dataset) -> None:
    source = dataset.to_ray(shuffle="global", seed=7, ray_options={"override_num_blocks": 3})
    found = [row["n"] for row in source.select_columns(["n"]).iter_rows()]
    assert found == list(sp.Pipeline(dataset, shuffle="global", seed=7).map(lambda one: one["n"]))


@pytest.mark.long
def test_training_goes_on_after_a_worker_died(dataset: Dataset, tmp_path: Path) -> None:
    """Workers have equally many steps, of which each comes once, also after a worker died.

    python -m pytest -m long tests/integrations/test_on_ray.py
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    path, seen = str(tmp_path / "source"), tmp_path / "seen"
    seen.mkdir()

    def train() -> None:
        from splitpipe.integrations import ray_train

        rank, world = ray_train.rank()
        pipe = sp.Pipeline(sp.open_dataset(path), shuffle="global", seed=5)
        pipe = pipe.map(lambda one: one["n"], workers=1).batch(4)
        since = "again" if ray.train.get_checkpoint() else "first"
        had: list[list[int]] = []
        with ray_train.loader(pipe) as loader:
            for step, batch in enumerate(loader):
                if since == "first" and step == 4:
                    os._exit(1)
                had.append(batch.tolist())
                checkpoint = None
                with tempfile.TemporaryDirectory() as folder:
                    if since == "first" and step == 2:
                        (seen / f"first-{rank}").write_text(json.dumps(had))
                        ray_train.save(loader, folder)
                        checkpoint = ray.train.Checkpoint.from_directory(folder)
                    ray.train.report({"step": step}, checkpoint=checkpoint)
        (seen / f"{since}-{rank}").write_text(json.dumps(had))
        assert world == 2

    trainer = DataParallelTrainer(
        train,
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            name="run",
            storage_path=str(tmp_path / "runs"),
            failure_config=FailureConfig(max_failures=1),
        ),
    )
    trainer.fit()
    assert sorted(os.listdir(seen)) == ["again-0", "again-1", "first-0", "first-1"]
    whole = sp.Pipeline(dataset, shuffle="global", seed=5).map(lambda one: one["n"]).batch(4)
    batches = [batch.tolist() for batch in whole]
    for rank in range(2):
        had = [json.loads((seen / f"{when}-{rank}").read_text()) for when in ("first", "again")]
        # 15 batches: the last round is not full, and nobody's.
        assert had[0] + had[1] == batches[rank:14:2]
        assert len(had[0]) == 3
