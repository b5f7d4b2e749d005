"""How far the stages of one process are, said so that each can be brought there again.

Responsible for: `Stretch`, which takes note of how many items came out of some stages for how many
that went in, where only running tells; and `facts_of`, which asks all stages of a chain that waits.

Rules:
- what has read nothing of an input in this run says nothing of how far that is: where an epoch is
  resumed, items of it may still have to be thrown away;
- asking changes nothing and is done between two items only: every generator of the chain waits at
  a ``yield``. What another thread makes meanwhile is left out;
- while nobody asks it costs some ten nanoseconds an item before and behind stages that give any
  number of items for one, and nothing anywhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Protocol

from splitpipe.pipeline.graph import Body, Part
from splitpipe.pipeline.resuming import Fact, opaque, read_fact
from splitpipe.pipeline.source import FactorySource
from splitpipe.pipeline.stages import Context, Join, Operation
from splitpipe.pipeline.stages.told import Ticks

__all__ = ["Stretch", "facts_of", "looks_back", "noting", "stretches", "tells"]

NOTE_S = 0.02
"""How long it may take from one note of a `Stretch` to the next."""

MOST = 1024
"""Items from one note to the next at most."""


class Stretch:
    """Per-item stages that give any number of items for one.

    Whenever the first of them asks for an item all items before it have been treated and taken:
    then counts belong together. That is noted every few milliseconds.

    Args:
        first: number of the part with which they begin.
        last: number of the part with which they end.
        read: items that had been read before this run.
        given: items that had come out before it.
    """

    def __init__(self, first: int, last: int, read: int = 0, given: int = 0) -> None:
        self.first = first
        self.last = last
        self.begun = read
        self.read = Ticks(read)
        self._given = Ticks(given)
        self._note = (given, read)

    def begin(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield what goes in."""
        return noting(self.read.over(items), self.read, self._take_note, NOTE_S)

    def end(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield what comes out."""
        return self._given.over(items)

    def fact(self, head: str) -> Fact | None:
        """Return what was noted last; None: it is still at the beginning."""
        given, read = self._note
        return Fact(given, (read,), None, head) if read else None

    def _take_note(self) -> None:
        self._note = self._given.count, self.read.count


def noting(
    items: Iterator[Any], ticks: Ticks, note: Callable[[], None], every_s: float
) -> Iterator[Any]:
    """Yield `items`, and call `note` about every `every_s`, when an item is asked for.

    Args:
        items: counted by `ticks`.
        ticks: their count.
        note: called before the first item, too.
        every_s: is tried to be kept, by a number of items that is adapted.
    """
    return chain.from_iterable(_blocks(items, ticks, note, every_s))


def _blocks(
    items: Iterator[Any], ticks: Ticks, note: Callable[[], None], every_s: float
) -> Iterator[Iterator[Any]]:
    size, then = 1, time.perf_counter()
    while True:
        before = ticks.count
        note()
        yield islice(items, size)
        if ticks.count < before + size:
            return
        now = time.perf_counter()
        if now - then < every_s / 4:
            size = min(2 * size, MOST)
        elif now - then > every_s:
            size = max(1, size // 2)
        then = now


def tells(body: Body) -> bool:
    """Whether there is anything to be known of a body that does not follow from counts alone."""
    return any(
        part.span is not None
        or (
            part.stage is not None
            and part.stage.operation.needs(1) is None
            and not opaque(part.stage.operation)
        )
        for part in body.parts
    )


def uncounted(operation: Operation) -> bool:
    """Whether a per-item operation gives any number of items for one."""
    return operation.per_item and operation.ratio is None and not operation.leaves_out


def stretches(body: Body, readers: Sequence[int], resumed: bool) -> list[Stretch]:
    """Return the stretches of a body whose counts only running tells."""
    made: list[Stretch] = []
    inside: set[int] = set()
    reader = {one: number for number, part in enumerate(body.parts) for one in part.inputs}
    for number, part in enumerate(body.parts):
        if part.stage is None or number in inside or not uncounted(part.stage.operation):
            continue
        last = number
        while readers[last] == 1 and (behind := reader.get(last)) is not None:
            stage = body.parts[behind].stage
            if stage is None or not stage.operation.per_item:
                break
            last = behind
            inside.add(last)
        start, end = (part.start, body.parts[last].start) if resumed else (None, None)
        read = start.reads[0] if start is not None and start.reads else 0
        made.append(Stretch(number, last, read, end.first if end is not None else 0))
    return made


def looks_back(body: Body) -> bool:
    """Whether a stage of `body` would go on from items that lie further back than what stages
    before it can say of themselves at the same moment: then they have to take notes from time to
    time.
    """
    known: list[bool] = []  # of every part, whether it or what it reads has anything to say
    for part in body.parts:
        before = any(known[one] for one in part.inputs)
        if part.stage is None:
            known.append(part.span is not None)
            continue
        operation = part.stage.operation
        says = operation.needs(1) is None and not opaque(operation)
        ahead = operation.ahead and operation.holds
        if before and (ahead or (says and _holds_back(operation))):
            return True
        known.append(before or says)
    return False


def _holds_back(operation: Operation) -> bool:
    if isinstance(operation, Join):
        return getattr(operation, "restart_every", None) is not None
    return not operation.leaves_out


class Asked(Protocol):
    """What is asked: a chain."""

    @property
    def body(self) -> Body: ...
    @property
    def readers(self) -> Sequence[int]: ...
    @property
    def resumed(self) -> bool: ...
    @property
    def contexts(self) -> Mapping[str, Context]: ...
    @property
    def ends(self) -> Mapping[int, Stretch]: ...
    def pulled(self, number: int) -> int | None: ...
    def read(self, number: int) -> int: ...


def facts_of(
    asked: Asked,
    given: Mapping[int, int],
    spans: Callable[[Part], tuple[int, int] | None] = lambda part: None,
) -> Iterator[tuple[str, Fact]]:
    """Yield what is known of the nodes of a chain that waits, by their keys.

    Args:
        asked: the chain.
        given: how many items each output has given, by its number; of those that are being made in
            another thread, nothing.
        spans: of an input that comes through pools: how many items had come before the message that
            is being read, and from which item of the pools' head on that was made.
    """
    body, taken = asked.body, dict[int, int]()
    count: int | None
    for output, count in given.items():
        end = body.outputs[output]
        if asked.readers[end] == 1 and count > _begun_with(asked, output):
            taken[end] = count
    for number in reversed(range(len(body.parts))):
        part = body.parts[number]
        count = taken.get(number) if asked.readers[number] == 1 else asked.pulled(number)
        if part.edge is not None and part.span is not None:
            found = spans(part)
            if found is not None and found[1]:
                yield part.span[0], Fact(found[0], (found[1],), None, part.span[1])
        if isinstance(part.source, FactorySource) and (read := asked.read(number)):
            yield part.key, read_fact(read)
        if part.stage is None or count is None:
            continue
        stretch = asked.ends.get(number)
        if stretch is not None:
            before = body.parts[stretch.first].inputs[0]
            fact = stretch.fact(body.parts[before].key)
            if fact is not None:
                yield part.key, fact
            if stretch.read.count > stretch.begun:
                taken[before] = stretch.read.count
            continue
        context = asked.contexts.get(part.stage.name)
        if context is None or opaque(part.stage.operation):
            continue
        fact, reads = _fact_of(part.stage.operation, context, count, len(part.inputs))
        if fact is not None:
            yield part.key, fact
        for place, (one, read) in enumerate(zip(part.inputs, reads, strict=False)):
            if read > context.begun(place):
                taken[one] = read


def _begun_with(asked: Asked, output: int) -> int:
    """Return how many items an output counts as given before it gives any."""
    body = asked.body
    if not asked.resumed:
        return 0
    start = body.parts[body.outputs[output]].start
    first = 0 if start is None else start.first
    return first + (body.drops[output] if body.drops else 0)


def _fact_of(
    operation: Operation, context: Context, count: int, inputs: int
) -> tuple[Fact | None, Sequence[int]]:
    """Return what is known of a stage that has given `count` items, and how far it has read its
    inputs; nothing where it does not say that.
    """
    needs = operation.needs(count)
    if needs is not None and not operation.ahead:
        return None, (needs,) * inputs
    if operation.leaves_out:
        reads = (context.begun() + count - context.start.first + context.dropped,)
        return Fact(count, reads), reads
    told = context.tell() if context.tell is not None else None
    if told is None:
        return None, ()
    taken = told.reads if told.taken is None else told.taken
    if needs is not None:
        return None, taken
    fact = Fact(count - told.back, told.reads, told.state)
    return fact, taken
