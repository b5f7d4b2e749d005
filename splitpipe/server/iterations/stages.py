"""What the stages of a stream do, for people.

Responsible for: `StageWatch`, which tells how busy everything was lately, and what to do about it,
in values of JSON.

Rules:
- what is told is about the last seconds, not about all the time since the beginning: an iteration
  may have waited for its clients all night;
- it may be asked by another thread than the one that reads the stream.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from splitpipe.loader import Loader
from splitpipe.runtime.statistics import TaskStatistics, since

__all__ = ["StageWatch"]

_LATELY_S = 10.0
_LEAST_S = 0.5
_MUCH = 0.9


class StageWatch:
    """Looks at a loader now and then.

    Args:
        loader: what is looked at.
        inline: whether everything is made by the process that asks for it.

    Attributes:
        busy_s: time that was spent asking the loader; for whoever does.
        made: batches that it gave; likewise.
    """

    def __init__(self, loader: Loader, *, inline: bool) -> None:
        self._loader = loader
        self._inline = inline
        self.busy_s = 0.0
        self.made = 0
        self._looks: deque[tuple[float, Any]] = deque([(time.monotonic(), None)])

    def told(self) -> dict[str, Any]:
        """Return ``stages`` and ``doctor``, a sentence.

        Every stage has a ``name``, its ``workers``, and the shares of their time that were spent
        ``busy``, ``waiting_in`` (for something to do) and ``waiting_out`` (for somebody to take
        it).
        """
        return self._alone() if self._inline else self._with_workers()

    def _alone(self) -> dict[str, Any]:
        now, busy_s = time.monotonic(), self.busy_s
        before, earlier_s = self._look(now, busy_s)
        share = _share(busy_s - (earlier_s or 0.0), now - before)
        (task, *_) = self._loader.stats()
        stages = [{"name": stage.name, "busy": None} for stage in task.stages]
        told = {
            "name": task.name,
            "workers": 0,
            "busy": share,
            "waiting_in": 0.0,
            "waiting_out": round(1.0 - share, 4),
            "items": self.made,
            "deaths": 0,
            "stages": stages,
        }
        text = (
            f"The iteration's own process made batches {share:.0%} of the time: clients wait for "
            "it. Give the iteration workers, if its modules or its decoding take long."
            if share >= _MUCH
            else f"Batches were made {share:.0%} of the time; for the rest nobody asked for more: "
            "the iteration waits for its clients."
        )
        return {"stages": [told], "doctor": text}

    def _with_workers(self) -> dict[str, Any]:
        tasks = self._loader.stats()
        _, earlier = self._look(time.monotonic(), tasks)
        shown = tasks if earlier is None else since(tasks, earlier)
        told = [_task(now, whole) for now, whole in zip(shown, tasks, strict=True)]
        return {"stages": told, "doctor": self._loader.doctor(since=earlier).text}

    def _look(self, now: float, seen: Any) -> tuple[float, Any]:
        """Take note of what is seen now; return when and what was seen some seconds ago."""
        looks = self._looks
        while len(looks) > 1 and now - looks[1][0] >= _LATELY_S:
            looks.popleft()
        before = looks[0]
        if now - looks[-1][0] >= _LEAST_S:
            looks.append((now, seen))
        return before


def _task(task: TaskStatistics, whole: TaskStatistics) -> dict[str, Any]:
    return {
        "name": task.name,
        "workers": task.workers,
        "busy": _share(task.busy_s, task.running_s),
        "waiting_in": _share(task.wait_input_s, task.running_s),
        "waiting_out": _share(task.wait_output_s, task.running_s),
        "items": whole.items_out,
        "deaths": whole.deaths,
        "stages": [
            {"name": stage.name, "busy": None if stage.share is None else round(stage.share, 4)}
            for stage in task.stages
        ],
    }


def _share(part_s: float, whole_s: float) -> float:
    return round(min(1.0, max(0.0, part_s / whole_s)), 4) if whole_s > 0 else 0.0
