"""The same run in another process.

Responsible for: `read_elsewhere`, which runs a graph inline in a fresh interpreter with a hash seed
of its own, and returns its stream and its trail.

Rules:
- the process is started as worker processes are (`spawn`): its program needs the same main guard;
- it is ended with the call, whatever became of it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from splitpipe.errors import PipelineError
from splitpipe.pipeline.builder import Pipeline
from splitpipe.transport.pickling import dump_description, load
from splitpipe.verification.streams import Stream, read
from splitpipe.verification.trails import Layer, Trail

__all__ = ["Trailed", "read_elsewhere", "read_here"]

Trailed = tuple[Stream, dict[tuple[int, int], Layer]]
"""A stream, and what flowed between its stages."""


def read_here(pipeline: Pipeline, *, items: int, epochs: int, **options: Any) -> Trailed:
    """Run a graph inline, in this process."""
    trail = Trail()
    made = read(pipeline, items=items, epochs=epochs, watcher=trail, executor="inline", **options)
    return made, trail.layers


def read_elsewhere(
    pipeline: Pipeline, *, items: int, epochs: int, hash_seed: int, limit_s: float
) -> Trailed:
    """Run a graph inline, in a process of its own.

    Args:
        pipeline: what to run.
        items: of every epoch, at most.
        epochs: to read.
        hash_seed: its ``PYTHONHASHSEED``, on which the order of sets depends.
        limit_s: how long it may take.

    Raises:
        NotPicklable: the graph cannot travel there.
        PipelineError: the process ended without a result, or took too long.
    """
    blob = dump_description((pipeline, items, epochs))
    context: Any = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, blob), daemon=True)
    try:
        with theirs, _hash_seed(hash_seed):
            process.start()
        if not ours.poll(limit_s):
            raise PipelineError(f"a process that runs it alone had no result after {limit_s:.0f} s")
        found = load(ours.recv_bytes())
    except EOFError:
        process.join()
        raise PipelineError(
            "a process that was to run it alone ended without a result, with exit code "
            f"{process.exitcode}; a program that starts processes needs the guard "
            'if __name__ == "__main__":'
        ) from None
    finally:
        ours.close()
        _end(process)
    if isinstance(found, BaseException):
        raise PipelineError(f"it cannot be run in a process of its own: {found}") from found
    made: Trailed = found
    return made


def _run(connection: Connection, blob: bytes) -> None:
    from splitpipe.transport.pickling import dump

    with connection:
        try:
            pipeline, items, epochs = load(blob)
            made: Any = read_here(pipeline, items=items, epochs=epochs)
        except Exception as error:
            made = PipelineError(f"{type(error).__name__}: {error}")
        connection.send_bytes(dump(made))


def _end(process: Any) -> None:
    if process.pid is None:
        return
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


@contextmanager
def _hash_seed(seed: int) -> Iterator[None]:
    """Let a process that is started meanwhile have this seed: it is read when Python begins."""
    earlier = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = str(seed)
    try:
        yield
    finally:
        if earlier is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = earlier
