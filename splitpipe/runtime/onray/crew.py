"""The actors of a run.

Responsible for: `Crew`, which starts one for every worker that is wanted, joins it in the way that
its place allows, and takes those that are away on again when all work is begun anew.

Rules:
- actors are asked for together, and come one after the other;
- an actor that is away does the next piece of work only if it has finished with the last one and
  left nothing behind; else another takes its place;
- with the run all of them end.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from splitpipe.errors import PipelineError
from splitpipe.pipeline.resources import Resources
from splitpipe.runtime.forking import starting_context
from splitpipe.runtime.onray.cluster import Cluster
from splitpipe.runtime.onray.nearby import Doorway, NearProcess
from splitpipe.runtime.onray.relay import RelayProcess, relay
from splitpipe.runtime.onray.wire import listen
from splitpipe.runtime.owner import Owner
from splitpipe.runtime.reserve import Hand
from splitpipe.runtime.worker import WorkerSpec

__all__ = ["Crew"]

AGAIN_S = 1.0
"""How long an actor may take to let go of its work when all begin anew."""

TRIES = 3
"""Actors that may be lost before they could begin, for one worker."""


@dataclass(eq=False, slots=True)
class _Away:
    """An actor on another machine: what it was asked to do last, and who speaks to it."""

    actor: Any
    reference: Any = None
    process: RelayProcess | None = None


@dataclass(eq=False, slots=True)
class _Wanted:
    """A worker that is to be."""

    spec: WorkerSpec
    resources: Resources
    number: int = 0
    actor: Any = None
    reference: Any = None
    away: _Away | None = field(default=None)


class Crew:
    """The actors of one run.

    Args:
        method: how relays are started.
        owner: whom nobody outlives.
    """

    def __init__(self, method: str | None, owner: Owner) -> None:
        self._method = method
        self._owner = owner
        self._cluster = Cluster()
        near = sys.platform == "linux" and os.environ.get("SPLITPIPE_RAY_JOIN") != "direct"
        self._doorway = Doorway() if near else None
        self._numbers = count()
        self._actors: dict[int, Any] = {}
        self._away: dict[int, _Away] = {}

    def hire(self, wanted: Sequence[tuple[WorkerSpec, Resources]]) -> Iterator[Hand]:
        """Yield somebody for each spec."""
        every = [_Wanted(spec, resources) for spec, resources in wanted]
        for one in every:
            one.away = self._free(one.spec.row)
            if one.away is None:
                self._ask(one)
        for one in every:
            yield self._hired(one)

    def close(self) -> None:
        """End all actors. Safe to call twice."""
        if self._doorway is not None:
            self._doorway.close()
        actors, self._actors = self._actors, {}
        for actor in actors.values():
            self._end(actor)
        self._away.clear()

    def _ask(self, one: _Wanted) -> None:
        """Ask for an actor, and do not wait for it."""
        one.number = next(self._numbers)
        one.actor = self._cluster.start(one.resources, one.spec.name)
        self._actors[one.number] = one.actor
        door = None if self._doorway is None else self._doorway.door
        one.reference = one.actor.join.remote(door, one.number)

    def _hired(self, one: _Wanted) -> Hand:
        for _ in range(TRIES):
            if one.away is not None:
                return self._relayed(one, one.away)
            near = self._cluster.answer(one.reference, one.spec.name, one.resources)
            if near is False:
                one.away = _Away(one.actor)
                return self._relayed(one, one.away)
            hand = None if near is None else self._near(one)
            if hand is not None:
                return hand
            self._dismiss(one.number)
            self._ask(one)
        raise PipelineError(
            f"{TRIES} actors in a row were lost before they could begin as {one.spec.name}; "
            "the log of the cluster says why"
        )

    def _near(self, one: _Wanted) -> Hand | None:
        """Return an actor of this machine; None: it was lost."""
        assert self._doorway is not None
        met = self._doorway.meet(one.number)
        if met is None:
            return None
        line, life, pid = met
        one.actor.attend.remote()
        end = partial(self._dismiss, one.number)
        hand = Hand(NearProcess(life, pid, end), line)
        try:
            line.give(self._owner.loosely())
        except OSError:
            hand.close()
            return None
        if hand.give(one.spec):
            return hand
        hand.close()
        return None

    def _relayed(self, one: _Wanted, away: _Away) -> Hand:
        """Return a process here that has the work done by an actor elsewhere."""
        listening, address = listen(self._cluster.address)
        context: Any = starting_context(self._method if self._method != "fork" else None)
        try:
            process = context.Process(
                target=relay,
                args=(one.spec, listening, address),
                name=f"splitpipe relay of {one.spec.name}",
            )
            process.start()
        finally:
            listening.close()
        away.reference = away.actor.work.remote(address.public)
        away.process = RelayProcess(process)
        self._away[one.spec.row] = away
        return Hand(away.process, None)

    def _free(self, row: int) -> _Away | None:
        """Return the actor elsewhere that has had the work of `row`, if it can have it again."""
        away = self._away.pop(row, None)
        if away is None:
            return None
        assert away.process is not None
        if not away.process.failed and self._cluster.done(away.reference, AGAIN_S):
            with contextlib.suppress(PipelineError):
                if self._cluster.result(away.reference):
                    return away
        self._end(away.actor)
        return None

    def _dismiss(self, number: int) -> None:
        """End an actor, if that has not been done."""
        actor = self._actors.pop(number, None)
        if actor is not None:
            self._end(actor)

    def _end(self, actor: Any) -> None:
        self._cluster.end(actor)
