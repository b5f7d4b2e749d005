"""What is verified, and the truth about it.

Responsible for: the `Subject` that all checks share: the graph, how much of it is read, the stream
that ``inline`` gives, and how much time is left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from splitpipe.pipeline.builder import Pipeline
from splitpipe.verification.graphs import unordered, varied
from splitpipe.verification.streams import Stream, difference, read
from splitpipe.verification.trails import Layer

__all__ = ["Subject"]


@dataclass
class Subject:
    """A graph under examination.

    Attributes:
        pipeline: settled.
        items: of an epoch that are compared.
        epochs: that are compared.
        workers: the most that a stage is given.
        worlds: numbers of ranks.
        start_method: of worker processes.
        deadline: when the time is over, on the clock of `time.monotonic`.
        truth: the stream of an inline run, the first one.
        trail: what flowed between its stages.
        repeatable: whether another inline run gave the same; None: nobody has looked.
    """

    pipeline: Pipeline
    items: int
    epochs: int
    workers: int
    worlds: tuple[int, ...]
    start_method: str | None
    deadline: float
    truth: Stream
    trail: dict[tuple[int, int], Layer]
    repeatable: bool | None = None
    streams: dict[str, Stream] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return max(0.0, self.deadline - time.monotonic())

    def over(self) -> bool:
        """Whether the time is."""
        return time.monotonic() > self.deadline

    def options(self, executor: str, transport: str = "pipe") -> dict[str, Any]:
        """Return options of a loader."""
        made: dict[str, Any] = {"executor": executor, "transport": transport}
        if executor == "process" and self.start_method is not None:
            made["start_method"] = self.start_method
        return made

    def read(self, workers: int | None, **options: Any) -> Stream:
        """Run the graph in another way, as far as the truth is known."""
        graph = varied(self.pipeline, workers)
        return read(graph, items=self.items, epochs=self.epochs, **options)

    def apart(self, other: Stream, *, ordered: bool = True) -> str | None:
        """Return where a stream parts from the truth; None where it does not."""
        return difference(self.truth, other, ordered=ordered)

    def most(self, name: str) -> int:
        """Return how many items of an epoch the truth took of a stage, at most."""
        counts = [len(layer.marks) for layer in self.trail.values() if layer.name == name]
        return max(counts, default=0) or self.items

    @property
    def unordered(self) -> tuple[str, ...]:
        """Stages that give up the order."""
        return unordered(self.pipeline)
