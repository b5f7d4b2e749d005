"""Tuning a run: between what its consumer sees and what its supervisor can change.

Responsible for: `Tuning`, which tells a `Tuner` how the run goes, and carries out what it decides.

Rules:
- it runs in the consumer's thread, some times a second, when a message has arrived; nothing ticks;
- it begins with one worker a pool, and with the usual number of units ahead;
- CPUs are those that this process may use; of the memory that it may have it leaves a fifth alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

import psutil

from splitpipe.pipeline.plan import MOST_AHEAD, Plan, RunOptions
from splitpipe.runtime import board as b
from splitpipe.runtime.allowance import allowance
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.keeper import Keeper
from splitpipe.runtime.observer import Observer
from splitpipe.runtime.tuner import Decision, Knob, Sample, Tuner

__all__ = ["Tuning"]

log = logging.getLogger("splitpipe")

MEMORY_SHARE = 0.8
MEMORY_EVERY_S = 1.0
"""Asking the system for the memory of every worker takes a tenth of a millisecond each."""


class Tuning:
    """Tunes one run.

    Args:
        plan: what is run.
        options: how.
        supervisor: has the workers, and the merges of this process.
        observer: knows what was delivered.
    """

    def __init__(
        self, plan: Plan, options: RunOptions, supervisor: Keeper, observer: Observer
    ) -> None:
        self._supervisor = supervisor
        self._observer = observer
        self._asked_memory = 0.0
        self._apply: list[Callable[[int], None]] = []
        allowed = allowance()
        cpus = max(1, int(allowed.cores))
        knobs: list[Knob] = []
        for number, task in enumerate(plan.tasks):
            if task.auto:
                knobs.append(Knob(f"workers of {task.name}", 1, task.workers, shares="cpus"))
                self._apply.append(supervisor.teams[number].work)
        workers = len(knobs)
        self._inboxes = [inbox for inbox, asked in self._merges(plan) if not asked]
        if options.auto_prefetch and self._inboxes:
            ahead = Knob("prefetch", options.prefetch, MOST_AHEAD, doubles=True)
            knobs.append(ahead)
            self._apply.append(self._widen)
        memory = allowed.memory_nbytes
        self._tuner = Tuner(
            knobs,
            budgets={"cpus": max(cpus, workers)},
            memory_nbytes=None if memory is None else int(MEMORY_SHARE * memory),
        )
        self.decision = self._tuner.decision
        for meter in observer.meters:
            meter.on_publish = self._after(meter.on_publish)

    @classmethod
    def begin(
        cls, plan: Plan, options: RunOptions, supervisor: Keeper, observer: Observer
    ) -> Tuning | None:
        """Return what tunes a run; None where nothing was left to it."""
        if not options.auto_prefetch and not any(task.auto for task in plan.tasks):
            return None
        return cls(plan, options, supervisor, observer)

    def _after(self, look: Callable[[float], None] | None) -> Callable[[float], None]:
        def both(now: float) -> None:
            if look is not None:
                look(now)
            if not self._supervisor.closed:
                self._look(now)

        return both

    def _look(self, now: float) -> None:
        nbytes = 0
        if now - self._asked_memory > MEMORY_EVERY_S:
            self._asked_memory = now
            nbytes = self._memory()
        meters = self._observer.meters
        sample = Sample(
            now,
            sum(meter.items_in for meter in meters),
            sum(meter.wait_input_s for meter in meters) / len(meters),
            nbytes,
        )
        decision = self._tuner.observe(sample)
        if decision is not self.decision:
            self._carry_out(decision)

    def _carry_out(self, decision: Decision) -> None:
        before, self.decision = self.decision, decision
        for apply, was, value in zip(self._apply, before.values, decision.values, strict=True):
            if value != was:
                apply(value)
        log.info("tuning: %s%s", decision.reason, "; settled" if decision.settled else "")

    def _merges(self, plan: Plan) -> Iterator[tuple[Inbox, bool]]:
        """Yield the merges of this process, and whether the user said how much may lie before."""
        writers = {edge: task for task in plan.tasks for edge in task.outputs}
        for local, inboxes in zip(plan.locals, self._supervisor.inboxes, strict=True):
            for edge, inbox in zip(local.inputs, inboxes, strict=True):
                stages = writers[edge].stages
                yield inbox, any(stage.options.capacity is not None for stage in stages)

    def _widen(self, ahead: int) -> None:
        for inbox in self._inboxes:
            inbox.widen(ahead)

    def _memory(self) -> int:
        """Return what all workers and this process take, and what they share once."""
        rows = self._observer.rows
        total = sum(int(row[b.ARENA_NBYTES]) for row in rows)
        for pid in {os.getpid(), *(int(row[b.PID]) for row in rows if row[b.PID] > 0)}:
            with contextlib.suppress(psutil.Error):
                info = psutil.Process(pid).memory_info()
                total += max(0, info.rss - getattr(info, "shared", 0))
        return total
