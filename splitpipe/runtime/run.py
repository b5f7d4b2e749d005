"""One run of a graph, as its loaders share it.

Responsible for: `Run`, which starts what a plan says, and ends it when nobody reads it any more or
when it failed.

Rules:
- an output that is closed no longer holds up the others; with the last one everything ends;
- what fails for one output ends the run for all of them: each says so when it is read next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from splitpipe.errors import PipelineError
from splitpipe.pipeline.graph import Node
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages.mixing import order_mixing
from splitpipe.runtime.engine import Engine
from splitpipe.runtime.heading import heading_of
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.observer import Observer
from splitpipe.runtime.ranks import Ranks
from splitpipe.runtime.supervisor import Supervisor
from splitpipe.runtime.tuning import Tuning

__all__ = ["Run"]


class Run:
    """What the loaders of one run have in common.

    Args:
        outputs: by name.
        options: how to run them.
    """

    def __init__(self, outputs: Mapping[str, Node], options: RunOptions) -> None:
        self.options = options
        self.plan = plan(outputs, options)
        self.ranks = Ranks(self.plan)
        self._names = tuple(outputs)
        self._open = set(range(len(outputs)))
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._failure: BaseException | None = None
        self.supervisor: Supervisor | None = None
        self.tuning: Tuning | None = None
        number = int.from_bytes(os.urandom(8), "little")
        heading = heading_of(self.plan, options, number)
        self.observer = Observer(heading, shared=bool(self.plan.tasks), trace=options.trace)
        inboxes: tuple[tuple[Inbox, ...], ...] = tuple(() for _ in self.plan.locals)
        if self.plan.tasks:
            self.supervisor = Supervisor(self.plan, options, self.observer)
            inboxes = self.supervisor.inboxes
            self.tuning = Tuning.begin(self.plan, options, self.supervisor, self.observer)
        self._engines = [
            Engine(local, merges, meter)
            for local, merges, meter in zip(
                self.plan.locals, inboxes, self.observer.meters, strict=True
            )
        ]

    @property
    def processes(self) -> bool:
        """Whether there are others than the consumer's."""
        return self.supervisor is not None

    def engine(self, number: int) -> tuple[Engine, int]:
        """Return what makes output `number`, and as which of its outputs."""
        if len(self._engines) == 1:
            return self._engines[0], number
        return self._engines[number], 0

    def consumer(self, number: int) -> int:
        """Return which of the consumers of this process reads output `number`."""
        return 0 if len(self._engines) == 1 else number

    def mixing(self, epoch: int) -> dict[str, float]:
        """Return how well each source with random access is shuffled in `epoch`, by its name."""
        made: dict[str, float] = {}
        bodies = [task.body for task in self.plan.tasks]
        bodies += [local.body for local in self.plan.locals]
        for part in (part for body in bodies for part in body.parts):
            if isinstance(part.source, SequenceSource) and len(part.source) > 1:
                name, number = part.source.name, 2
                while name in made:
                    name, number = f"{part.source.name}-{number}", number + 1
                made[name] = order_mixing(part.source.whole(0 if part.frozen else epoch))
        return made

    def fail(self, error: BaseException) -> BaseException:
        """End the run for all outputs because of `error`; return what to raise for this one."""
        if self._failure is not None and self._failure is not error:
            ended = PipelineError(
                f"the run ended with {type(self._failure).__name__} for another output: "
                f"{self._failure}"
            )
            ended.__cause__ = self._failure
            return ended
        self._failure = error
        self._close()
        for engine in self._engines:
            engine.fail()
        return error

    def release(self, number: int) -> None:
        """Output `number` is not read any more. Safe to call twice."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if number not in self._open:
                return
            self._open.discard(number)
            last = not self._open
        if last:
            self._close()
            return
        engine, output = self.engine(number)
        engine.forget(output)
        if self.supervisor is not None and self._failure is None:
            for inbox in self.supervisor.inboxes[number]:
                inbox.detach()

    def _close(self) -> None:
        if self.supervisor is not None:
            self.supervisor.close()
        self.observer.close()
