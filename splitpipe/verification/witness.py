"""How one item was made.

Responsible for: the `Witness`, a watcher that counts, times and numbers what every source and stage
gives from one moment to another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from splitpipe.pipeline.graph import Part
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages import Mix, Operation, Shuffle, Through
from splitpipe.pipeline.stages.random import wants_rng
from splitpipe.recording.lineage import Origin, records_of
from splitpipe.runtime.watching import Watched

__all__ = ["StageRun", "Witness"]

MOST_NUMBERS = 4096


@dataclass(frozen=True)
class StageRun:
    """What one stage did for an item.

    Attributes:
        name: of the stage.
        items: it gave, meanwhile.
        seconds: it took, without the stages before it.
        rng: whether it draws numbers: ``"item"``, ``"epoch"`` or None.
        numbers: of the items that it gave, by which (with seed, name and epoch) its generator is
            known; empty where it draws for the whole epoch, or not at all.
    """

    name: str
    items: int
    seconds: float
    rng: str | None = None
    numbers: tuple[int, ...] = ()


@dataclass
class _Part:
    """A source or a stage, and what it has given."""

    watched: Watched
    items: int = 0
    seconds: float = 0.0
    numbers: list[int] = field(default_factory=list)
    before: tuple[int, float] = (0, 0.0)


class Witness:
    """Sees how items are made; `begin` says from when on it counts."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], _Part] = {}
        self._inner = 0.0  # time that went into what the running part reads

    def watch(self, watched: Watched, items: Iterator[Any]) -> Iterator[Any]:
        made = _Part(watched)
        self._parts[watched.epoch, watched.number] = made
        return self._witnessed(made, iter(items))

    def begin(self) -> None:
        """From now on it counts."""
        for part in self._parts.values():
            part.before = (part.items, part.seconds)
            part.numbers.clear()

    def stages(self) -> tuple[StageRun, ...]:
        """Return what every stage did since `begin`."""
        made = []
        for part in self._parts.values():
            stage = part.watched.part.stage
            if stage is None:
                continue
            items, seconds = part.items - part.before[0], part.seconds - part.before[1]
            numbers = tuple(part.numbers) if stage.operation.random else ()
            made.append(StageRun(stage.name, items, seconds, _draws(stage.operation), numbers))
        return tuple(made)

    def origins(self) -> tuple[Origin, ...]:
        """Return what was read of every source since `begin`."""
        return tuple(
            _origin(part.watched.part, part) for part in self._parts.values() if _is_source(part)
        )

    def _witnessed(self, part: _Part, items: Iterator[Any]) -> Iterator[Any]:
        context = part.watched.context
        while True:
            outer, self._inner = self._inner, 0.0
            began = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                spent = time.perf_counter() - began
                part.seconds += spent - self._inner
                self._inner = outer + spent
            part.items += 1
            place = None if context is None else context.place
            if place is not None and len(part.numbers) < MOST_NUMBERS:
                part.numbers.append(place.number)
            yield item
            del item


def _is_source(part: _Part) -> bool:
    return part.watched.part.source is not None


def _origin(part: Part, seen: _Part) -> Origin:
    first, epoch = seen.watched.first, 0 if part.frozen else seen.watched.epoch
    start, stop = first + seen.before[0], first + seen.items
    source = part.source
    records: tuple[int, ...] = ()
    if isinstance(source, SequenceSource):
        records = records_of(source, epoch, start, stop)
    return Origin(seen.watched.name, epoch, start, stop, False, records)


def _draws(operation: Operation) -> str | None:
    if operation.random:
        return "item"
    if isinstance(operation, (Shuffle, Mix)):
        return "epoch"
    if isinstance(operation, Through) and "rng" not in operation.keywords:
        return "epoch" if wants_rng(operation.function) else None
    return None
