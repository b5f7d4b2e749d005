"""A recorder and its loader: what the one may ask of the other, which it does not keep alive."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from splitpipe.pipeline.builder import Pipeline
from splitpipe.recording.options import Record
from splitpipe.recording.recorder import Recorder
from splitpipe.runtime.run import Run
from splitpipe.runtime.saved import Place
from splitpipe.runtime.statistics import TaskStatistics
from splitpipe.runtime.watching import Seen

__all__ = ["Seeing", "recorder_of"]


class _Engine(Protocol):
    @property
    def seen(self) -> Seen | None: ...


class _Loader(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def stats(self) -> Sequence[TaskStatistics]: ...


class Seeing:
    """What a recorder may ask.

    Args:
        engine: what the consumer's process runs.
        loader: whose it is.
        begins: where its run begins.
    """

    def __init__(self, engine: _Engine, loader: _Loader, begins: Place) -> None:
        self._engine = engine
        self._begins = begins
        self._loader = weakref.ref(loader)

    def seen(self) -> Seen | None:
        return self._engine.seen

    def first(self, epoch: int) -> int:
        return self._begins.items if epoch == self._begins.epoch else 0

    def state(self) -> dict[str, Any] | None:
        loader = self._loader()
        return None if loader is None else loader.state_dict()

    def tasks(self) -> list[dict[str, Any]]:
        loader = self._loader()
        return [] if loader is None else [_brief(task) for task in loader.stats()]


def recorder_of(
    name: str, pipeline: Pipeline, run: Run, number: int, begins: Place
) -> Recorder | None:
    """Return what records output `number` of a run, called `name`; None where nobody asked.

    Raises:
        StorageError: nothing can be written where it was asked for.
    """
    options = run.options
    if options.record is None:
        return None
    return Recorder(
        Record.of(options.record, name),
        pipeline,
        options={
            "executor": options.executor,
            "transport": options.transport,
            "epochs": options.epochs,
        },
        plan=run.plan,
        output=number,
        begins=(begins.epoch, begins.items),
    )


def _brief(task: TaskStatistics) -> dict[str, Any]:
    """What a recording tells of a task, now and then: where its time has gone so far."""
    stages = {one.name: round(one.busy_s, 3) for one in task.stages if one.share is not None}
    return {
        "name": task.name,
        "workers": task.workers,
        "items_out": task.items_out,
        "busy_s": round(task.busy_s, 3),
        "stages_s": stages,
    }
