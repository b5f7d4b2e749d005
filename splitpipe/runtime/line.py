"""The stages of a pool's worker, put together once and begun anew for every unit of work.

Responsible for: `Line`, which does for one unit after the other what a `Chain` does for one pass.

Rules:
- it gives what a `Chain` over the same items gives. A pool's stages always are a line: one input,
  one output, nothing that several read, nothing that is resumed. That is looked at once, so that a
  unit costs no more than the generators that it runs in;
- what a stage counted in a unit is gone in the next one: whoever wants it asks before `begin`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from splitpipe.pipeline.graph import Body, Part
from splitpipe.pipeline.stages import Batch, Context, Operation
from splitpipe.pipeline.stages.base import Place
from splitpipe.pipeline.stages.failed import Ledger
from splitpipe.runtime.closing import close_all, raising
from splitpipe.runtime.cursor import Cursor
from splitpipe.runtime.heads import tag, untag
from splitpipe.runtime.holding import kept
from splitpipe.runtime.metrics import NOWHERE, Layer
from splitpipe.runtime.notes import Notes
from splitpipe.runtime.scene import Scene

__all__ = ["Line"]


@dataclass(slots=True)
class _Link:
    """A stage of the line.

    Attributes:
        part: what it is.
        number: among the stages of the task.
        operation: what it does.
        holds: whether it keeps items while it asks for more.
        place: which item it treats; None where nobody asks.
        numbers: which item it gives, where it numbers its own.
        ratio: positions of the source that make one item that it gives.
        context: where it counts, in the unit that runs.
    """

    part: Part
    number: int
    operation: Operation
    holds: bool
    place: Place | None
    numbers: Place | None
    ratio: int
    context: Context


class Line:
    """The stages of a body that is a line, over one unit of work at a time.

    Args:
        body: what to run.
        kept: what stages keep from one unit to the next, by name.
    """

    def __init__(self, body: Body, kept: dict[str, dict[str, Any]]) -> None:
        self._body = body
        self._kept = kept
        self._head = body.parts[0]
        self._epoch = self._named = -1
        self._frozen = body.parts[-1].frozen  # all of it lies before a cache, or nothing
        self._ledger = Ledger()
        self._items: list[Iterator[Any]] = []
        self._layers: list[Iterator[Any]] = []
        self._links: list[_Link] = []
        self._place = self._end = Place() if self._head.numbered else None
        assert self._head.stage is None
        assert body.outputs == (len(body.parts) - 1,)
        edges, ratio = int(self._head.edge is not None), 1
        for number, part in enumerate(body.parts[1:], 1):
            self._add(part, number - edges, ratio := ratio * _ratio(part))
        self._edges = edges
        self._tagged = body.parts[-1].numbered and body.tagged
        self.contexts: dict[str, Context] = {}
        """Of every stage, by its name: what it counted in this unit."""
        self.cursor = Cursor()
        """How far the unit has been read."""

    def begin(
        self,
        epoch: int,
        first: int,
        open_head: Callable[[], Iterator[Any]],
        *,
        ledger: Ledger | None = None,
        notes: Notes | None = None,
    ) -> Iterator[Any]:
        """Return what the stages make of a unit; what was made of the last one is closed.

        Args:
            epoch: which pass over the source.
            first: position of its first item.
            open_head: returns its items.
            ledger: where stages enter items that failed; None where none does.
            notes: where to note which stage runs, and at which item; None: nobody asks.
        """
        self._named = epoch
        epoch = 0 if self._frozen else epoch
        self._renew(epoch, ledger)
        part, place = self._head, self._place
        try:
            items = open_head()
        except Exception as error:  # it is raised where the first item would come
            items = raising(error)
        stages = notes if notes is not None and notes.stages else None
        self._items = [items]
        layers = self._layers = [items]
        if notes is not None:
            items = self._noted(items, notes)
        self.cursor = Cursor(first)
        items = self.cursor.count(items)
        if place is not None:
            place.number, place.part = first, 0
            if part.edge is not None:
                items = untag(items, place)
            else:
                items = place.mark(items, part.numbers(epoch, first))
            layers.append(items)
        for link in self._links:
            items = self._through(link, items, first, stages)
        if self._tagged:
            assert self._end is not None
            items = tag(items, self._end)
            layers.append(items)
        return items

    def close(self) -> None:
        """Close every generator of the unit, the last stage's first.

        Raises:
            Exception: what the clean-up code of a user's generator raised, after all were closed.
        """
        layers, self._layers = self._layers, []
        close_all(layers)

    def __iter__(self) -> Iterator[Layer]:
        """Yield what runs, for whoever measures it."""
        for number, items in enumerate(self._items):
            if not number:
                yield Layer(NOWHERE if self._edges else 0, None, items)
            else:
                link = self._links[number - 1]
                yield Layer(link.number, link.context, items)

    @property
    def counts(self) -> bool:
        """Whether a stage has counted anything in this unit."""
        return any(_counts(link.context) for link in self._links)

    def where(self, error: BaseException, worker: str) -> tuple[str, ...]:
        """Return notes that say in which stage and at which item `error` was raised."""
        scene = Scene(self._body, self._named, {0: self.cursor}, self._items[:1])
        return scene.where(error, worker)

    def _through(
        self, link: _Link, items: Iterator[Any], first: int, notes: Notes | None
    ) -> Iterator[Any]:
        """Return what one stage makes of `items`, in the unit that begins at position `first`."""
        layers = self._layers
        if link.holds:
            items = kept(items)
        if notes is not None:
            layers.append(items := notes.outside(items, link.number))
        items = link.operation.run((items,), link.context)
        self._items.append(items)
        layers.append(items)
        if notes is not None:
            layers.append(items := notes.inside(items, link.number))
        if (place := link.numbers) is not None:
            number = first // link.ratio
            place.number, place.part = number, 0
            layers.append(items := place.mark(items, link.part.numbers(self._epoch, number)))
        return items

    def _noted(self, items: Iterator[Any], notes: Notes) -> Iterator[Any]:
        """Note when the source runs, and which item comes."""
        if notes.stages:
            self._layers.append(items := notes.inside(items, -self._edges))
        if notes.items:
            self._layers.append(items := notes.following(items, 0))
        return items

    def _add(self, part: Part, number: int, ratio: int) -> None:
        stage, place = part.stage, self._end
        assert stage is not None
        assert part.inputs == (len(self._links),)
        operation = stage.operation
        numbers = Place() if part.numbered and not operation.per_item else None
        self._end = place if numbers is None else numbers
        holds = operation.holds or (isinstance(operation, Batch) and bool(operation.collate))
        context = Context(stage.name)
        self._links.append(_Link(part, number, operation, holds, place, numbers, ratio, context))

    def _renew(self, epoch: int, ledger: Ledger | None) -> None:
        """Let every stage count from 0."""
        every = ledger is not None or epoch != self._epoch
        self._epoch = epoch
        for link in self._links:
            if every or _counts(link.context):
                stage = link.part.stage
                assert stage is not None
                link.context = self.contexts[stage.name] = Context(
                    stage.name,
                    seed=self._body.seed,
                    epoch=epoch,
                    place=link.place,
                    measures=link.operation.measures,
                    kept=self._kept.setdefault(stage.name, {}),
                    ledger=self._ledger if ledger is None else ledger,
                )


def _counts(context: Context) -> bool:
    return bool(context.dropped or context.measured or context.counts.treated)


def _ratio(part: Part) -> int:
    assert part.stage is not None
    return part.stage.operation.ratio or 1
