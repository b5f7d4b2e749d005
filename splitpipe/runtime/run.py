"""One run of a graph, as its loaders share it.

Responsible for: `Run`, which starts what a plan says, and ends it when nobody reads it any more or
when it failed.

Rules:
- an output that is closed no longer holds up the others; with the last one everything ends;
- what fails for one output ends the run for all of them: each says so when it is read next.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from splitpipe.errors import PipelineError, ResumeError
from splitpipe.interrupts import held_back
from splitpipe.pipeline.graph import Node
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.pipeline.resuming import Facts, Resume, as_facts, remade, settle
from splitpipe.pipeline.signature import signature
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages.mixing import order_mixing
from splitpipe.runtime.book import Book, check_policies
from splitpipe.runtime.engine import Engine
from splitpipe.runtime.heading import heading_of
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.keeper import Keeper
from splitpipe.runtime.observer import Observer
from splitpipe.runtime.ranks import Ranks
from splitpipe.runtime.saved import Place, graph_of, place_of, resume_of, state_of
from splitpipe.runtime.tuning import Tuning

__all__ = ["Run"]

log = logging.getLogger("splitpipe")

MANY = 1000
"""Items that are made again and worth a line in the log."""


class Run:
    """What the loaders of one run have in common.

    Args:
        outputs: by name.
        options: how to run them.
        resume: where to go on; None: at the beginning.
    """

    def __init__(
        self, outputs: Mapping[str, Node], options: RunOptions, resume: Resume | None = None
    ) -> None:
        self.options = options
        self._outputs = dict(outputs)
        self.plan = plan(outputs, options, resume)
        self.ranks = Ranks(self.plan)
        self.replayed = remade(self.plan.whole.graph, self.plan.whole.settled)
        self._names = tuple(outputs)
        self._open = set(range(len(outputs)))
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._failure: BaseException | None = None
        self.supervisor: Keeper | None = None
        self.tuning: Tuning | None = None
        number = int.from_bytes(os.urandom(8), "little")
        heading = heading_of(self.plan, options, number)
        self.observer = Observer(
            heading,
            shared=bool(self.plan.tasks),
            trace=options.trace,
            errors=check_policies(self.plan),
        )
        book = Book(self.observer.log, worker="the consumer's process")
        inboxes: tuple[tuple[Inbox, ...], ...] = tuple(() for _ in self.plan.locals)
        if self.plan.tasks:
            self.supervisor = Keeper(
                self.plan, options, self.observer, partial(plan, self._outputs, options)
            )
            inboxes = self.supervisor.inboxes
            self.tuning = Tuning.begin(self.plan, options, self.supervisor, self.observer)
        self._engines = [
            Engine(local, merges, meter, book)
            for local, merges, meter in zip(
                self.plan.locals, inboxes, self.observer.meters, strict=True
            )
        ]

    @property
    def processes(self) -> bool:
        """Whether there are others than the consumer's."""
        return self.supervisor is not None

    @cached_property
    def signature(self) -> list[dict[str, Any]]:
        """What states remember of the graph."""
        return signature(self._outputs)

    def places(self, states: Mapping[str, Mapping[str, Any]]) -> dict[str, Place]:
        """Return the places that `states` of outputs are of.

        Raises:
            ResumeError: one does not fit this graph.
        """
        return {name: place_of(state, self.signature) for name, state in states.items()}

    def state(self, number: int, place: Place) -> dict[str, Any]:
        """Return the state of output `number`, which is at `place`.

        Raises:
            ResumeError: its items come in no order.
        """
        for task in self.plan.tasks:
            if not task.ordered:
                raise ResumeError(
                    f"{task.name!r} is run with ordered=False: which items would come next is not "
                    "known; leave ordered= out to save states"
                )
        name = self._names[number]
        return state_of(self.plan.whole, self.signature, name, place, self.facts(name, place))

    def facts(self, name: str, place: Place) -> Facts:
        """Return what is known now that helps to bring output `name` to `place` again."""
        whole = self.plan.whole
        made = as_facts(whole.settled, whole.keys) if place.epoch == whole.epoch else Facts()
        for engine in self._engines:
            for key, fact in engine.facts(place.epoch):
                made.add(key, fact)
        ledgers = [] if self.supervisor is None else self.supervisor.ledgers
        for ledger in reversed(ledgers):
            # What a stage needs says which facts are of use before it, also within one task.
            before: dict[str, int] = {}
            while True:
                resume = Resume(place.epoch, {name: place.items}, made)
                settled = settle(whole.graph, whole.keys, resume)
                most = {whole.keys[node]: count for node, count in settled.wanted.items()}
                other = {key: count for key, count in most.items() if before.get(key) != count}
                if not other:
                    break
                before = most
                for key, fact in ledger.facts(place.epoch, other.get):
                    made.add(key, fact)
        return made

    def again(self, number: int, place: Place, state: Mapping[str, Any] | None = None) -> Run:
        """Return a run of the same graph in which output `number` goes on at `place`; the others
        are not read.

        Args:
            number: of the output.
            place: where it goes on.
            state: what more is known; None: what this run knows.
        """
        name, outputs = self._names[number], self._outputs
        if state is None:
            facts = self.facts(name, place)
            resume = Resume(place.epoch, {name: place.items}, facts, sought=frozenset((name,)))
        else:
            resume = resume_of({name: state}, {name: place}, [name])
            outputs = graph_of({name: state}, {name: place}, outputs)
        made = Run(outputs, self.options, resume)
        for other in range(len(self._names)):
            if other != number:
                made.release(other)
        return made

    def tell_replay(self) -> None:
        """Say in the log what has to be made again, where that is much."""
        many = {name: count for name, count in self.replayed.items() if count >= MANY}
        if many:
            said = ", ".join(f"{name!r} {count:,}" for name, count in many.items())
            log.info("resuming: items are made again, and thrown away, by %s", said)

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
            left = set(range(len(self._names))) - self._open
            last = not self._open
        if last:
            self._close()
            return
        engine, output = self.engine(number)
        engine.forget(output)
        if self.supervisor is not None and self._failure is None:
            for inbox in self.supervisor.inboxes[number]:
                inbox.detach()
            self.supervisor.forsake(left)

    def _close(self) -> None:
        with held_back():
            if self.supervisor is not None:
                self.supervisor.close()
            self.observer.close()
