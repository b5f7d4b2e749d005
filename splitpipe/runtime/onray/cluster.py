"""The cluster, as far as this program needs it.

Responsible for: `ray_library`, and `Cluster`, which starts an actor with the resources that a task
asks for, waits for it, and ends it.

Rules:
- whoever has connected to a cluster is left alone; who has not is connected as Ray itself would do
  it: to the cluster that its environment names, else to one on this machine;
- a cluster that has no room may grow: who waits for a place says so in the log, and gives up late.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from splitpipe.errors import NotPicklable, PipelineError
from splitpipe.pipeline.resources import Resources
from splitpipe.runtime.onray.actor import WorkerActor

__all__ = ["PLACE_S", "Cluster", "places", "ray_library"]

log = logging.getLogger("splitpipe")

PLACE_S = 300.0
"""How long a place for an actor is waited for, unless ``SPLITPIPE_RAY_PLACE_S`` says otherwise."""

TELL_S = 10.0
"""How long it takes from one word on waiting to the next."""

MOST_PLACES = 64
"""Workers that are started at most where nobody says how many."""


def ray_library() -> Any:
    """Return the module.

    Raises:
        PipelineError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise PipelineError(
            "executor='ray' needs Ray, which is not installed: pip install 'splitpipe[ray]'"
        ) from error
    return ray


def places(resources: Resources) -> int:
    """Return how many workers with `resources` each find room on the cluster now; one at least."""
    cluster = Cluster()
    free = cluster.free()
    room = [free.get(name, 0.0) // amount for name, amount in resources if amount]
    return max(1, min(MOST_PLACES, *map(int, room)) if room else 1)


class Cluster:
    """The cluster that this process is connected to, or will be now."""

    def __init__(self) -> None:
        self._ray = ray_library()
        if not self._ray.is_initialized():
            self._ray.init()

    @property
    def address(self) -> str:
        """Where this process is reached from other machines."""
        address: str = self._ray.util.get_node_ip_address()
        return address

    def free(self) -> dict[str, float]:
        """Return what nobody has of its resources, by name."""
        free: dict[str, float] = self._ray.available_resources()
        return free

    def start(self, resources: Resources, name: str) -> Any:
        """Return a new actor; it may take a while until it is there."""
        rest = dict(resources)
        options = {
            "num_cpus": rest.pop("CPU", 0.0),
            "num_gpus": rest.pop("GPU", 0.0),
            "resources": {one: rest[one] for one in rest if one != "memory"},
            "max_restarts": 0,
        }
        if "memory" in rest:
            options["memory"] = int(rest["memory"])
        try:
            return self._ray.remote(WorkerActor).options(**options).remote(name)
        except (ValueError, TypeError) as error:
            raise PipelineError(f"Ray refuses resources={dict(resources)}: {error}") from error

    def answer(self, reference: Any, name: str, resources: Resources) -> Any:
        """Return what a new actor says, waiting for its place; None: it is dead.

        Raises:
            PipelineError: no node has room for it.
        """
        limit_s = float(os.environ.get("SPLITPIPE_RAY_PLACE_S", PLACE_S))
        deadline = time.monotonic() + limit_s
        wants = dict(resources)
        while time.monotonic() < deadline:
            ready, _ = self._ray.wait([reference], timeout=min(TELL_S, limit_s))
            if ready:
                return self.result(reference)
            log.warning("%s waits for a place on the cluster, with %s", name, wants)
        raise PipelineError(
            f"no node of the cluster had room for {name}, which needs {wants}, within "
            f"{limit_s:g} s; the cluster has {self._ray.cluster_resources()}, of which "
            f"{self._ray.available_resources()} is free. Ask for less (resources=, workers=), or "
            "set SPLITPIPE_RAY_PLACE_S"
        )

    def done(self, reference: Any, within_s: float) -> bool:
        """Whether a call has ended."""
        return bool(self._ray.wait([reference], timeout=within_s)[0])

    def result(self, reference: Any) -> Any:
        """Return what a call has returned; None: its actor is dead."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            raise PipelineError(
                "an actor could not begin; is the same splitpipe installed on every node of the "
                f"cluster? {error}"
            ) from error
        except errors.RuntimeEnvSetupError as error:
            raise NotPicklable(f"an actor's environment cannot be made: {error}") from error
        except errors.RayError as error:
            log.warning("an actor was lost before it could begin: %s", error)
            return None

    def end(self, actor: Any) -> None:
        """End an actor, whatever it does."""
        if self._ray.is_initialized():
            self._ray.kill(actor)
