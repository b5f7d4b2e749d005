"""What is known of an interval of a run, what is said of it, and the model between the two.

Responsible for: `Observation`, `Diagnosis`, and `Case`, which says how busy everything was and what
the rate would be if something were not.

Model: operational analysis (Denning and Buzen, "The Operational Analysis of Queueing Network
Models", ACM Computing Surveys 1978). A task of w workers that are busy a share U of their time
serves at most 1/U of the present rate; a pipeline with enough prefetch runs as fast as its slowest
task, so after a change the rate is ``1 / max(U)`` of what it is now, all CPUs together being one
more such task.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from splitpipe.runtime.statistics import TaskStatistics

__all__ = ["Case", "Diagnosis", "Observation", "gain_of", "share_of", "the"]


@dataclass(frozen=True)
class Observation:
    """What is known of an interval.

    Attributes:
        tasks: what each did in it; the consumer is the last.
        elapsed_s: how long it was.
        startup_s: what lay between the beginning of the run and its first item.
        cpus: how many the run may use.
        idle_cpus: how many of them had nothing to do, on average; None where nobody knows.
        copied_nbytes_s: how fast this machine copies memory; None where nobody asked.
    """

    tasks: tuple[TaskStatistics, ...]
    elapsed_s: float
    startup_s: float = 0.0
    cpus: float = 1.0
    idle_cpus: float | None = None
    copied_nbytes_s: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What holds a pipeline back.

    Attributes:
        kind: ``consumer``, ``stage``, ``workers`` (a stage that more of them would help),
            ``source``, ``memory``, ``start-up``, ``small`` (too little work an item), ``cpus``,
            ``window`` (too little under way), ``inline``, or ``unknown`` (nothing to go by yet).
        stage: the name of the stage, or task, that it is about; empty for none.
        evidence: the numbers that say so.
        advice: what to change.
        gain: the rate after that, as a multiple of the present one; None where no model tells.
        workers: how many the stage should have, where that is the advice.

    Example:
        >>> import splitpipe as sp
        >>> with sp.Pipeline(range(6)).loader(executor="inline") as loader:
        ...     items = list(loader)
        ...     diagnosis = loader.doctor()
        >>> diagnosis.kind, diagnosis.gain
        ('inline', None)
    """

    kind: str
    stage: str
    evidence: str
    advice: str
    gain: float | None = None
    workers: int | None = None

    @property
    def text(self) -> str:
        """All of it as one paragraph."""
        text = f"{self.evidence} {self.advice}{self._expectation()}"
        return text[0].upper() + text[1:]

    def _expectation(self) -> str:
        if self.gain is None:
            return ""
        if self.gain < 1.05:
            return " Expected gain: none in the rate."
        return f" Expected gain: about {self.gain:.1f} times the present rate."

    def __str__(self) -> str:
        return self.text


class Case:
    """An observation, and what follows from it.

    Args:
        observation: of at least one task, the consumer.
    """

    def __init__(self, observation: Observation) -> None:
        self.seen = observation
        *self.tasks, self.consumer = observation.tasks
        self.elapsed_s = max(1e-9, observation.elapsed_s)

    @cached_property
    def slowest(self) -> TaskStatistics:
        return max(self.tasks, key=lambda task: task.utilisation)

    @cached_property
    def waiting(self) -> float:
        """The share of its time that the loop waits for items."""
        return share_of(self.consumer.wait_input_s, self.consumer.running_s)

    @cached_property
    def used_cpus(self) -> float:
        """CPUs that the run keeps busy."""
        return sum(task.cpu_s for task in self.seen.tasks) / self.elapsed_s

    @cached_property
    def free_cpus(self) -> float:
        """CPUs that more work could use: idle ones, and its fair share where others use the rest,
        which is taken to be half of the machine.
        """
        cpus, idle = self.seen.cpus, self.seen.idle_cpus
        if idle is None:
            idle = cpus
        return min(max(0.0, cpus - self.used_cpus), max(idle, cpus / 2 - self.used_cpus))

    @cached_property
    def starved(self) -> float:
        """The share of their time for which workers could have run and had no CPU."""
        running = sum(task.running_s for task in self.tasks)
        return share_of(sum(task.starved_s for task in self.tasks), running)

    @cached_property
    def cpu_utilisation(self) -> float:
        """How much of what it could have of the CPUs the run uses."""
        return self.used_cpus / max(1e-9, self.used_cpus + self.free_cpus)

    def others(self, task: TaskStatistics) -> float:
        """The utilisation of whatever limits the rate when `task` no longer does."""
        rest = [other.utilisation for other in self.seen.tasks if other is not task]
        return max([*rest, self.cpu_utilisation])

    def next_limit(self, task: TaskStatistics) -> str:
        """Name it."""
        rest = [other for other in self.seen.tasks if other is not task]
        other = max(rest, key=lambda one: one.utilisation)
        if other.utilisation < self.cpu_utilisation:
            return "the CPUs"
        return the(other)


def gain_of(*utilisations: float) -> float:
    """The rate when these are what is left to limit it."""
    return min(1000.0, 1.0 / max(1e-3, *utilisations))


def share_of(part: float, whole: float) -> float:
    """Return ``part / whole``; 0 of nothing."""
    return part / whole if whole > 0 else 0.0


def the(task: TaskStatistics) -> str:
    """Return how a sentence names `task`."""
    if not task.workers:
        return "the loop"
    workers = "" if task.workers == 1 else f" ({task.workers} workers)"
    return f"task {task.name!r}{workers}"
