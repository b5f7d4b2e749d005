"""Ray Data over two nodes: read, mapped and written on both, and with one of them killed.

``pytest -m long tests/integrations/test_ray_nodes.py``; one cluster of two nodes on this machine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from tests.clusters import NODE, ray_cluster

ray = pytest.importorskip("ray", reason="it is Ray that is spoken to here")
pytest.importorskip("ray.data", reason="it is Ray Data that is spoken to here")
pytest.importorskip("ray.cluster_utils", reason="a cluster of several nodes")

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.leaks("Ray keeps threads and connections of its own until it is shut down"),
    pytest.mark.deadline(600),
]

COUNT = 96
TASKS = 12
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(num_cpus=2) as made:
        made.second = made.add_node(num_cpus=2, **NODE)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        yield made


@pytest.mark.parametrize("killed", [False, True])
def test_two_nodes_read_and_write(cluster: Any, tmp_path: Path, killed: bool) -> None:
    from splitpipe.integrations.ray_data import from_ray

    marks, second = tmp_path / "marks", cluster.second.node_id
    marks.mkdir()
    with sp.DatasetWriter(tmp_path / "in", {"n": "int64", "x": sp.ndarray("int32", (500,))}) as w:
        for n in range(COUNT):
            w.write({"n": n, "x": np.full(500, n)}, f"key {n}", {"half": n / 2})

    def marked(batch: dict[str, Any]) -> dict[str, Any]:
        node = ray.get_runtime_context().get_node_id()
        number = int(batch["n"][0])
        (marks / f"{number}-{node}").touch()
        if killed and node == second:  # until the node is gone
            threading.Event().wait(PATIENCE_S)
        return {**batch, "n": batch["n"] * 3}

    spread = {"scheduling_strategy": "SPREAD"}

    def write() -> None:
        options = {
            "override_num_blocks": TASKS,
            "ray_remote_args": {"scheduling_strategy": "SPREAD"},
        }
        with sp.open_dataset(tmp_path / "in") as source:
            rows = source.to_ray(keys="key", metas="meta", ray_options=options)
            rows = rows.map_batches(marked, batch_size=None, **spread)
            from_ray(rows, tmp_path / "out", keys="key", metas="meta")

    writing = threading.Thread(target=write)
    writing.start()
    if killed:
        stop = threading.Event()
        while not any(marks.glob(f"*-{second}")) and writing.is_alive():
            stop.wait(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)
    writing.join(PATIENCE_S)
    assert not writing.is_alive()
    nodes = {path.name.rpartition("-")[2] for path in marks.iterdir()}
    assert len(nodes) == 2
    with sp.open_dataset(tmp_path / "out") as out:
        assert [one["n"] for one in out] == [3 * n for n in range(COUNT)]
        assert all((one["x"] == one["n"] // 3).all() for one in out)
        assert out.keys() == [f"key {n}" for n in range(COUNT)]
        assert out.metas() == [{"half": n / 2} for n in range(COUNT)]
    assert sp.check_dataset(tmp_path / "out").ok
    assert sorted(os.listdir(tmp_path)) == ["in", "marks", "out"]
