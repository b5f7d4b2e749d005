"""What has to be said or made ready before worker processes can start.

Responsible for: pickling what they run, and saying which stage cannot travel; refusing to start
from a script that a worker imports.
"""

from __future__ import annotations

from multiprocessing import process

from splitpipe.errors import NotPicklable, PipelineError
from splitpipe.pipeline.graph import Body
from splitpipe.transport.pickling import dump_description, dump_description_by_value

__all__ = ["pickled_body", "refuse_import_of_main"]


def pickled_body(body: Body, *, by_value: bool = False) -> bytes:
    """Pickle the work of a task, or say which of its stages cannot travel.

    What the main script defines goes `by_value` to who cannot import that.
    """
    dumped = dump_description_by_value if by_value else dump_description
    try:
        return dumped(body)
    except NotPicklable:
        for stage in body.stages:
            try:
                dumped(stage)
            except NotPicklable as error:
                raise NotPicklable(
                    f"stage {stage.name!r} cannot travel to a worker process: {error}"
                ) from error
        raise NotPicklable(
            "the source cannot travel to a worker process; pass a function that opens it there, "
            "or start_method='fork'"
        ) from None


def refuse_import_of_main() -> None:
    """Refuse to start while a worker process imports the main script."""
    if getattr(process.current_process(), "_inheriting", False):
        raise PipelineError(
            "a loader was started while a worker process imports the main script; put the code "
            "that runs it below `if __name__ == '__main__':`"
        )
