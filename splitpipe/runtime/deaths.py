"""Workers that died: what is said of one, and what may be done about it.

Responsible for: `Death`, what is known of one, in words; `Record`, which keeps all of a run and
says when it is enough.

Rules:
- a run goes on while it gets on: only deaths in a row count, those between which nothing new
  reached the consumer. More of them than `restarts` end the run (`WorkerDied`, `WorkerStalled`);
- one item at which three workers died is at fault itself, whatever happened in between
  (`PoisonRecord`). Of the first of them it need only be known that it may have been that item; for
  the others its position was noted;
- where the stage that treated it may leave it out, it is (`Record.accused`), and the run goes on.
  What the system killed for want of memory is no fault of an item, as little as a `MemoryError` is;
- who ends by itself before it could begin would do so again, and has said why: that is not tried a
  second time;
- a kill is called one for want of memory where the system counted one, and only there.
"""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from splitpipe.errors import PipelineError, PoisonRecord, WorkerDied, WorkerStalled
from splitpipe.pipeline.guarding import policies
from splitpipe.pipeline.plan import Task
from splitpipe.pipeline.source import SequenceSource
from splitpipe.runtime.blame import Accusation
from splitpipe.runtime.notes import NO_STAGE, Accused, Site
from splitpipe.runtime.watchdog import Stall

__all__ = ["LOST", "POISON", "Death", "Record"]

log = logging.getLogger("splitpipe")

POISON = 3
"""Workers that one item may kill."""

LOST = 1000
"""Stands for the exit status of a worker of which nothing is known but that it is gone, or that
nobody reaches it any more."""

MOST_SITES = 1000
"""Deaths of which the place is remembered."""

_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


@dataclass(frozen=True)
class Death:
    """What is known of the end of one worker.

    Attributes:
        task: its number in the plan, ...
        name: ... and its stages.
        index: of the worker in its task.
        pid: of its process.
        exitcode: as `multiprocessing` says it: below 0 is a signal.
        began: whether it got as far as running its task.
        site: where it was; None where it was waiting, or nobody knows.
        memory: which kills for want of memory the system counted; None where it does not tell.
        stall: why it was killed by its own owner; None where it was not.
    """

    task: int
    name: str
    index: int
    pid: int
    exitcode: int
    began: bool = True
    site: Site | None = None
    memory: str | None = None
    stall: Stall | None = None

    @property
    def hopeless(self) -> bool:
        """Whether another one would end in the same way."""
        return not self.began and self.exitcode >= 0 and self.exitcode != LOST

    @property
    def text(self) -> str:
        """All of it in words."""
        text = f"worker {self.index} of stage {self.name!r} (pid {self.pid}) {self.how}"
        if not self.began and self.exitcode != LOST:
            text += (
                " before it could begin; its own error stands above. Is the main script guarded "
                "with `if __name__ == '__main__':`?"
            )
        elif self.site is not None:
            text += f", {self.site}"
        return text

    @property
    def how(self) -> str:
        """How it ended."""
        if self.stall is not None:
            return f"{self.stall.text} and was killed"
        code = self.exitcode
        if code == LOST:
            return "was lost: its actor, its node or the way to it is gone"
        if code >= 0:
            return f"left with exit status {code}"
        try:
            how = f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            how = f"was killed by signal {-code}"
        if -code == signal.SIGKILL and self.memory:
            how += (
                f" for want of memory ({self.memory}): fewer workers, a smaller prefetch, or less "
                "held in the stages' own objects; arena_bytes bounds the shared part"
            )
        elif -code == signal.SIGKILL and self.memory is None:
            how += " (out of memory?)"
        elif -code in _FAULTS:
            how += " (a fault in native code that a stage calls)"
        return how


def _asks(task: Task) -> bool:
    """Whether a stage of a task says what becomes of items that end its workers."""
    stages = task.body.stages
    asks = any(stage.operation.accuses for stage in stages)
    return asks or any(policy.leaves_out for policy in policies(stages))


def _may_be_left_out(death: Death) -> bool:
    """Whether a worker died at an item that its stage may leave out."""
    return death.site is not None and death.site.item is not None and not death.memory


class Record:
    """The deaths of a run.

    Args:
        restarts: how many in a row are made good; None: any number.
        tasks: of the plan: they name sources and stages.

    Example:
        >>> record = Record(1, ())
        >>> first = Death(0, "decode", 0, 4711, -9)
        >>> record.note([first], progress=0)
        >>> record.note([first], progress=7)
        >>> error = record.note([first], progress=7)
        >>> print(error)  # doctest: +ELLIPSIS
        worker 0 of stage 'decode' (pid 4711) was killed by SIGKILL (out of memory?). ...
    """

    def __init__(self, restarts: int | None, tasks: Sequence[Task]) -> None:
        self._restarts = restarts
        self._tasks = tasks
        self._progress: object = None
        self._in_a_row = 0
        self._sites: list[Site] = []
        self._guarded = any(map(_asks, tasks))
        self.accused: dict[Accused, Accusation] = {}
        """Items that are to be left out, and how they have ended workers."""
        self.deaths: Counter[int] = Counter()
        """How many there were, by the number of the task."""

    @property
    def suspects(self) -> bool:
        """Whether an item is known at which a worker died, or one may be left out: the next may
        tell in which stage.
        """
        return self._guarded or any(site.position is not None for site in self._sites)

    def note(self, dead: Sequence[Death], progress: object) -> PipelineError | None:
        """Take note of workers that died together.

        Args:
            dead: those.
            progress: how far the run has got; anything that changes when it gets on.

        Returns:
            What ends the run; None where they are to be replaced.
        """
        for death in dead:
            self.deaths[death.task] += 1
        if self._restarts == 0:
            return self._error(dead[0], dead[0].text)
        for death in dead:
            if death.hopeless:
                return self._error(death, death.text)
            if death.site is not None:
                self._sites = [*self._sites[-MOST_SITES:], death.site]
                found = self._poison(death, death.site)
                if found is not None and not _may_be_left_out(death):
                    advice = "Look at that item with executor='inline', repair it or leave it out"
                    return PoisonRecord(f"{found}. {advice}")
                if found is not None:
                    self._leave_out(death.site, found)
        if all(map(_may_be_left_out, dead)):
            return None  # a third death at the most, and it is left out
        self._in_a_row = self._in_a_row + 1 if progress == self._progress else 1
        self._progress = progress
        if self._restarts is not None and self._in_a_row > self._restarts:
            text = (
                f"{dead[0].text}. It was the death number {self._in_a_row} between which nothing "
                f"new was made; restarts={self._restarts} allows no more"
            )
            return self._error(dead[0], text)
        return None

    def _error(self, death: Death, text: str) -> PipelineError:
        if death.stall is None:
            return WorkerDied(text)
        return WorkerStalled(f"{text}. Where it was:\n{death.stall.stacks}")

    def _leave_out(self, site: Site, found: Accusation) -> None:
        assert site.item is not None
        self.accused[site.item] = found
        self._sites = [one for one in self._sites if not one.may_be(site)]
        log.warning("%s. It is not tried again: its stage says what becomes of it", found)

    def _poison(self, death: Death, site: Site) -> Accusation | None:
        """Return what is said of the item at `site`, where it has ended enough workers."""
        if site.position is None:
            return None
        same = [one for one in self._sites if one.may_be(site)]
        known = [one for one in same if one.position is not None]
        if len(same) < POISON or len(known) < POISON - 1:
            return None
        return Accusation(
            self._item(site),
            f"has ended {len(same)} workers{self._stage(known)}; the last: {death.text}",
        )

    def _item(self, site: Site) -> str:
        """Return what the user would call the item at `site`."""
        place = f"position {site.position} of epoch {site.epoch}"
        part = self._tasks[site.task].body.parts[site.head]
        if part.source is None:
            return f"an input item of {self._tasks[site.task].name!r} ({place})"
        assert site.position is not None
        source = part.source
        if isinstance(source, SequenceSource) and site.position < len(source):
            record = source.describe(site.position, 0 if part.frozen else site.epoch)
            return f"{record} ({place} of source {source.name!r})"
        return f"an item of source {source.name!r} ({place})"

    def _stage(self, sites: Sequence[Site]) -> str:
        """Return in which stage, where that is known."""
        site = next((one for one in reversed(sites) if one.stage != NO_STAGE), None)
        if site is None:
            return ""
        body = self._tasks[site.task].body
        parts = [part for part in body.parts if part.edge is None]
        if site.stage >= len(parts):
            return ""
        part = parts[site.stage]
        return f" in stage {part.stage.name!r}" if part.stage is not None else " when it was read"
