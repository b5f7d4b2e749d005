"""How worker processes begin: the start method, and the server that forks them.

Responsible for: `starting_context`, and `warm_up`, which lets the fork server begin while this
process is still busy with something else.

Rules:
- this module imports nothing of splitpipe: it is what comes first;
- what every worker would import the server imports once, beforehand.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from multiprocessing import forkserver, process
from multiprocessing.context import BaseContext

__all__ = ["starting_context", "warm_up"]

_FIRST = "splitpipe.runtime.prelude"

_PRELOADED = ("splitpipe.runtime.worker", "splitpipe.transport.pipe", "threadpoolctl")
"""By name: whoever only warms up does not import them. What is not there is passed over."""

_PRELOADED_IF_USED = (
    "splitpipe.dataset",
    "splitpipe.dataset.opening",
    "splitpipe.storage.table",
    "splitpipe.remote",
    "splitpipe.cache",
    "splitpipe.stores.http",
    "splitpipe.stores.s3",
    "botocore.session",
    "botocore.client",
)
"""What workers need if the consumer's process does: reading datasets, and what lies in a store."""


def starting_context(method: str | None) -> BaseContext:
    """Return what starts processes by `method`; None: the best there is."""
    method = _chosen(method)
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        server = getattr(forkserver, "_forkserver", None)
        wanted: list[str] = list(getattr(server, "_preload_modules", ["__main__"]))
        if _FIRST not in wanted:
            used = [name for name in _PRELOADED_IF_USED if name in sys.modules]
            context.set_forkserver_preload([_FIRST, *wanted, *_PRELOADED, *used])
    return context


def warm_up(method: str | None) -> None:
    """Let the fork server begin, where `method` needs one, and do not wait for it.

    It imports for about as long as the consumer's process does before it can start a worker; on
    two processors that is half of the time to the first batch.
    """
    if _chosen(method) == "forkserver" and not getattr(
        process.current_process(), "_inheriting", False
    ):
        starting_context(method)
        with contextlib.suppress(OSError):  # whoever starts a worker will be told
            forkserver.ensure_running()


def _chosen(method: str | None) -> str:
    if method is not None:
        return method
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
