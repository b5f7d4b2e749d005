"""What has to be said or made ready before worker processes can start.

Responsible for: pickling what they run, and saying which stage cannot travel; the start method, and
what its server loads beforehand; refusing to start from a script that a worker imports.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver, process
from multiprocessing.context import BaseContext

from splitpipe.errors import NotPicklable, PipelineError
from splitpipe.pipeline.graph import Body
from splitpipe.runtime.worker import main
from splitpipe.transport.pickling import dump_description

__all__ = ["pickled_body", "refuse_import_of_main", "starting_context"]


def pickled_body(body: Body) -> bytes:
    """Pickle the work of a task, or say which of its stages cannot travel."""
    try:
        return dump_description(body)
    except NotPicklable:
        for stage in body.stages:
            try:
                dump_description(stage)
            except NotPicklable as error:
                raise NotPicklable(
                    f"stage {stage.name!r} cannot travel to a worker process: {error}"
                ) from error
        raise NotPicklable(
            "the source cannot travel to a worker process; pass a function that opens it there, "
            "or start_method='fork'"
        ) from None


def starting_context(method: str | None) -> BaseContext:
    """Return what starts processes by `method`; None: the best there is."""
    if method is None:
        available = multiprocessing.get_all_start_methods()
        method = "forkserver" if "forkserver" in available else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        server = getattr(forkserver, "_forkserver", None)
        wanted: list[str] = list(getattr(server, "_preload_modules", ["__main__"]))
        if main.__module__ not in wanted:
            # What every worker would import: once is enough. What is not there is passed over.
            context.set_forkserver_preload([*wanted, main.__module__, "threadpoolctl"])
    return context


def refuse_import_of_main() -> None:
    """Refuse to start while a worker process imports the main script."""
    if getattr(process.current_process(), "_inheriting", False):
        raise PipelineError(
            "a loader was started while a worker process imports the main script; put the code "
            "that runs it below `if __name__ == '__main__':`"
        )
