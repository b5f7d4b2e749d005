"""What a recorder may ask of a loader, which it does not keep alive."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from splitpipe.runtime.statistics import TaskStatistics
from splitpipe.runtime.watching import Seen

__all__ = ["Seeing"]


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
    """

    def __init__(self, engine: _Engine, loader: _Loader) -> None:
        self._engine = engine
        self._loader = weakref.ref(loader)

    def seen(self) -> Seen | None:
        return self._engine.seen

    def state(self) -> dict[str, Any] | None:
        loader = self._loader()
        return None if loader is None else loader.state_dict()

    def tasks(self) -> list[dict[str, Any]]:
        loader = self._loader()
        return [] if loader is None else [_brief(task) for task in loader.stats()]


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
