"""Ray clusters of several nodes on this machine, for tests and benchmarks.

Responsible for: `ray_cluster`, which starts one, joins it, and removes all of it at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

__all__ = ["NODE", "ray_cluster"]

# What a node has beside its CPUs. Its store is small: there are several of them on one machine.
NODE: dict[str, Any] = {"object_store_memory": 80 << 20}


@contextmanager
def ray_cluster(num_cpus: int, *, environ: dict[str, str] | None = None) -> Iterator[Any]:
    """A cluster of one node, which this program has joined.

    Args:
        num_cpus: of the first node; others come with ``add_node(num_cpus=, resources=, **NODE)``.
        environ: more variables for Ray's own processes.

    Yields:
        The `ray.cluster_utils.Cluster`.
    """
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="sp-ray-")  # a short name: sockets lie in it
    os.mkdir(f"{folder}/ray")
    given = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", **(environ or {})}
    head = {"num_cpus": num_cpus, **NODE, "include_dashboard": False, "temp_dir": f"{folder}/ray"}
    with patch.dict(os.environ, given):
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
            yield made
        finally:
            ray.shutdown()
            made.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
