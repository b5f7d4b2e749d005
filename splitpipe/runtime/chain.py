"""The stages of one process, put together for one run of items.

Responsible for: the `Chain`, which makes iterators out of a `Body`. How far an input was read is
known to its `Cursor`.

Rules:
- a chain is lazy: an item is made when it is asked for, so that the cursors say at any time which
  input items went into what came out so far;
- what several stages or outputs read is read through `Branches`;
- items are numbered only where a stage behind asks for it; a number travels beside its item
  wherever items may be counted anew (a branch, another process);
- closing a chain closes the user's generators, innermost last, now and not when the garbage
  collector comes by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import count, islice
from typing import Any, TypeAlias

from splitpipe.pipeline.graph import Body, Part
from splitpipe.pipeline.resuming import Fact
from splitpipe.pipeline.source import FactorySource
from splitpipe.pipeline.stage import Stage
from splitpipe.pipeline.stages import Batch, Context, Operation
from splitpipe.pipeline.stages.base import Place
from splitpipe.pipeline.stages.failed import Ledger
from splitpipe.runtime.again import Again, Pass, widths
from splitpipe.runtime.branches import CAPACITY, Branches, Turns
from splitpipe.runtime.capture import Stretch, facts_of, stretches
from splitpipe.runtime.closing import close_all, raising
from splitpipe.runtime.cursor import Cursor
from splitpipe.runtime.heads import tag, untag
from splitpipe.runtime.holding import kept
from splitpipe.runtime.metrics import NOWHERE, Layer
from splitpipe.runtime.notes import Notes
from splitpipe.runtime.proving import proven, shorter
from splitpipe.runtime.scene import Scene
from splitpipe.runtime.watching import Watched, Watcher

__all__ = ["Chain", "Cursor"]

Stream: TypeAlias = "tuple[Iterator[Any], Place | None]"


class Chain:
    """The stages of a body over one run of items.

    Args:
        body: what to run.
        epoch: which pass over the source.
        first: position of the first item of a source.
        counted: whether inputs are counted one by one (see `Cursor`).
        turns: where every output is read by a thread of its own, how they wait for each other.
        kept: what stages keep from one epoch to the next, by name.
        watcher: who sees what every part gives.
        asked: whether `facts` may be asked for.
        ledger: where stages enter items that failed and are left out.
    """

    def __init__(
        self,
        body: Body,
        epoch: int = 0,
        *,
        first: int = 0,
        counted: bool = True,
        turns: Turns | None = None,
        kept: dict[str, dict[str, Any]] | None = None,
        asked: bool = False,
        watcher: Watcher | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.body = self._body = body
        self._watcher = watcher
        self.resumed = body.resumes == epoch  # its parts begin where they say
        self._ledger = Ledger() if ledger is None else ledger
        self._epoch, self._first = epoch, first
        self._turns = turns
        self._kept = {} if kept is None else kept
        self.readers = self._readers = _readers(body)
        some = stretches(body, self.readers, self.resumed) if asked else []
        self._begins = {one.first: one for one in some}
        self.ends: Mapping[int, Stretch] = {one.last: one for one in some}
        self._shared: dict[tuple[int, int], Branches] = {}
        self._layers: dict[int, list[Any]] = {}
        self._passes = count(_EVERYBODY - 1, -1)
        self._serves: dict[int, int] = {}  # for which output a pass is made
        self._sources: dict[int, Iterator[Any]] = {}
        self._opened: Counter[int] = Counter()  # how often sources and inputs were
        self._open: Callable[[int, Part, int], Iterator[Any]] = _nothing
        self.contexts: dict[str, Context] = {}
        """Of every stage, by its name: what it counted."""
        self.running: list[Layer] = []
        """What runs, for whoever measures it."""
        self.notes: Notes | None = None  # where to note what is worked on; before `start`
        self._widths = widths(body)
        self._edges = sum(part.edge is not None for part in body.parts)
        self.cursors = {
            one: Cursor(first or self._first_of(body.parts[one]), counted=counted)
            for one in body.heads
        }

    @property
    def cursor(self) -> Cursor:
        """The one of the first input."""
        return self.cursors[self._body.heads[0]]

    @property
    def position(self) -> int:
        """How many items were taken of all inputs together."""
        return sum(cursor.position for cursor in self.cursors.values())

    @property
    def dropped(self) -> int:
        """How many items the stages left out on purpose."""
        return sum(context.dropped for context in self.contexts.values())

    def start(self, open_head: Callable[[int, Part, int], Iterator[Any]]) -> list[Iterator[Any]]:
        """Return an iterator for each output; once.

        Args:
            open_head: called with the number of a source or an input, with it, and with which pass
                over it is wanted, usually the epoch; returns its items.
        """
        self._open = open_head
        made: list[Iterator[Any]] = []
        for output, number in enumerate(self._body.outputs):
            items, place = self._read(
                number,
                output,
                0 if self._body.parts[number].frozen else self._epoch,
                self._body.reader(output),
            )
            if self._body.parts[number].numbered and self._body.tagged:
                assert place is not None
                items = self._layer(output, tag(items, place))
            if self.resumed and self._body.drops and self._body.drops[output]:
                items = islice(items, self._body.drops[output], None)
            made.append(items)
        return made

    def branches(self, number: int) -> list[Branches]:
        """Return what several read part `number` through, in every pass over it."""
        return [one for (shared, _), one in list(self._shared.items()) if shared == number]

    def facts(
        self,
        given: Mapping[int, int],
        spans: Callable[[Part], tuple[int, int] | None] = lambda part: None,
    ) -> Iterator[tuple[str, Fact]]:
        """Yield what is known of its nodes; see `facts_of`."""
        return facts_of(self, given, spans)

    def read(self, number: int) -> int:
        """Return how many items were read of a source that is read from its beginning, at least."""
        cursor = self.cursors[number]
        alone = cursor.counted and self._opened[number] == 1
        return cursor.position if alone and not self.body.parts[number].frozen else 0

    def pulled(self, number: int) -> int | None:
        """Return how many items a part has given that several read; None: not known now."""
        branches = self._shared.get((number, self._epoch))
        pulled = None if branches is None else branches.pulled
        return None if pulled is None else self._first_of(self._body.parts[number]) + pulled

    def _first_of(self, part: Part) -> int:
        return part.start.first if self.resumed and part.start is not None else 0

    def _dropping(self, part: Part, number: int, items: Iterator[Any]) -> Iterator[Any]:
        """Return the items of an input without those that are made again only."""
        count = part.drops[number] if self.resumed and part.drops else 0
        return islice(items, count, None) if count else items

    def leave(self, output: int) -> None:
        """Output `output` wants no more: end what is made for it alone."""
        close_all(self._layers.pop(output, []))

    def close(self) -> None:
        """Close every generator of the chain, the last stage's first.

        Raises:
            Exception: what the clean-up code of a user's generator raised, after all were closed.
        """
        layers = [layer for output in sorted(self._layers) for layer in self._layers[output]]
        self._layers.clear()
        self._open = _nothing  # which was a method of who holds this chain: no circle stays
        close_all(layers)

    def where(self, error: BaseException, worker: str) -> tuple[str, ...]:
        """Return notes that say in which stage and at which item `error` was raised."""
        scene = Scene(self._body, self._epoch, self.cursors, self._sources.values())
        return scene.where(error, worker)

    # -- putting together; `owner` is for what a layer is made, `epoch` which pass it is

    def begin(self, number: int, epoch: int, owner: int, reader: str) -> tuple[Iterator[Any], int]:
        """Return the items of part `number` in another pass, and the owner of what makes them."""
        made = next(self._passes)
        self._serves[made] = self._serves.get(owner, owner)
        self._layers.setdefault(owner, []).append(Pass(self, made))
        return self._read(number, made, epoch, reader)[0], made

    def end(self, owner: int) -> None:
        """Close what was made for `owner`."""
        close_all(self._layers.pop(owner, []))

    def _read(self, number: int, owner: int, epoch: int, reader: str) -> Stream:
        """Return the items of part `number` for one reader of it."""
        if self._readers[number] == 1:
            return self._make(number, owner, epoch)
        numbered = self._body.parts[number].numbered
        branches = self._shared.get((number, epoch))
        if branches is None or branches.complete:  # what lies before a cache is read anew as it was
            branches = self._branch(number, epoch, numbered=numbered)
        items: Iterator[Any] = self._layer(
            owner, branches.reader(reader, self._serves.get(owner, owner))
        )
        if not numbered:
            return items, None
        place = Place()
        return self._layer(owner, untag(items, place)), place

    def _branch(self, number: int, epoch: int, *, numbered: bool) -> Branches:
        part = self._body.parts[number]
        items, place = self._make(number, _EVERYBODY, epoch)
        if numbered:
            assert place is not None
            items = self._layer(_EVERYBODY, tag(items, place))
        branches = Branches(
            items,
            self._readers[number],
            capacity=part.capacity or CAPACITY,
            name=part.name,
            turns=self._turns,
        )
        self._shared[number, epoch] = branches
        return branches

    def _make(self, number: int, owner: int, epoch: int) -> Stream:
        """Return the items of part `number`; a long chain of stages needs no deep recursion."""
        parts, line = self._body.parts, [number]
        while (part := parts[line[-1]]).stage is not None:
            before = part.inputs[0]
            alone = len(part.inputs) == 1 and self._readers[before] == 1
            operation = part.stage.operation
            if not alone or operation.reopens or operation.first_epoch:
                break
            line.append(before)
        last = line.pop()
        if part.stage is None:
            made = self._head(last, part, owner, epoch)
        else:
            nothing: Stream = (iter(()), None)
            replays = self.replays(part.stage)
            made = self._stage(last, part.stage, owner, epoch, nothing if replays else None)
        for one in reversed(line):
            stage = parts[one].stage
            assert stage is not None
            made = self._stage(one, stage, owner, epoch, made)
        return made

    def _stage(
        self, number: int, stage: Stage, owner: int, epoch: int, made: Stream | None
    ) -> Stream:
        """Return the items of a stage, over `made` where that is all it reads."""
        part, name, operation = self._body.parts[number], stage.name, stage.operation
        before_epoch = 0 if operation.first_epoch else epoch
        before: Place | None = None
        inputs: list[Iterator[Any]] = []
        if operation.reopens:
            width = self._widths[number]
            inputs += (Again(self, one, epoch, owner, name, width) for one in part.inputs)
        else:
            streams = (
                [made]
                if made is not None
                else [self._read(one, owner, before_epoch, name) for one in part.inputs]
            )
            holds = operation.holds or (isinstance(operation, Batch) and operation.collate)
            wanted = [self._dropping(part, n, items) for n, (items, _) in enumerate(streams)]
            taken = (kept(items) if holds else items for items in wanted)
            inputs += (self._timed(owner, items, number, own=False) for items in taken)
            before = streams[0][1]
        if number in self._begins and epoch == self._epoch:
            inputs = [self._begins[number].begin(inputs[0])]
        context = self._context(name, operation, epoch, before)
        if self.resumed and part.start is not None:
            # A copy: what stages do to it changes nothing for who begins there once more.
            context.start = replace(part.start, state=deepcopy(part.start.state))
        items = self._layer(owner, operation.run(inputs, context))
        self.running.append(Layer(number - self._edges, context, items))
        items = self._timed(owner, items, number, own=True)
        items = self._proven(part, items, self._first_of(part), epoch)
        if number in self.ends and epoch == self._epoch:
            items = self.ends[number].end(items)
        items = self._watched(number, owner, items, context)
        if operation.per_item or not part.numbered:
            return items, before
        first = self._first_of(part) or self._first // self._ratio(number)
        place = Place(first)
        return self._layer(owner, place.mark(items, part.numbers(epoch, first))), place

    def _timed(self, owner: int, items: Iterator[Any], number: int, *, own: bool) -> Iterator[Any]:
        """Note when part `number` runs: while its `own` items are asked for, not while it asks."""
        if self.notes is not None and self.notes.stages:
            note = self.notes.inside if own else self.notes.outside
            items = self._layer(owner, note(items, number - self._edges))
        return items

    def replays(self, stage: Stage) -> bool:
        """Whether a stage has what its input would give: nobody needs to begin with it."""
        return stage.operation.complete(self._kept.setdefault(stage.name, {}))

    def _context(self, name: str, operation: Operation, epoch: int, place: Place | None) -> Context:
        """Return the context of a stage: of every pass over it the same counters."""
        kept = self._kept.setdefault(name, {})
        context = Context(
            name,
            seed=self._body.seed,
            epoch=epoch,
            place=place,
            measures=operation.measures,
            kept=kept,
            ledger=self._ledger,
        )
        earlier = self.contexts.get(name)
        if earlier is not None:
            context.follow(earlier)
        self.contexts[name] = context
        return context

    def _ratio(self, number: int) -> int:
        """How many positions of the source make one item of part `number`, in a pool."""
        ratio, part = 1, self._body.parts[number]
        while part.stage is not None:
            ratio *= part.stage.operation.ratio or 1
            part = self._body.parts[part.inputs[0]]
        return ratio

    def _head(self, number: int, part: Part, owner: int, epoch: int) -> Stream:
        first = self._first_of(part)
        if part.start is not None and not first:
            part = replace(part, start=None)
        try:
            items = self._layer(owner, self._open(number, part, epoch))
        except Exception as error:  # of a factory: it is raised where its first item would come
            items = self._layer(owner, raising(error))
        self._sources[number] = items
        self._opened[number] += 1
        stage = NOWHERE if part.edge is not None else number - self._edges
        self.running.append(Layer(stage, None, items))
        if isinstance(part.source, FactorySource):
            items = self._proven(part, items, 0, epoch)
            items = islice(items, first, None)  # it can only be read from its beginning
        elif part.edge is not None:
            items = self._proven(part, items, first, epoch)
        items = self._watched(number, owner, items, None)
        items = self._timed(owner, items, number, own=True)
        if self.notes is not None and self.notes.items:
            items = self._layer(owner, self.notes.following(items, number, first))
        cursor = self.cursors[number]
        if cursor.counted:
            items = self._layer(owner, cursor.count(items))
        if not part.numbered:
            return items, None
        first = first or self._first
        place = Place(first)
        if part.edge is not None:
            return self._layer(owner, untag(items, place)), place
        return self._layer(owner, place.mark(items, part.numbers(epoch, first))), place

    def _proven(self, part: Part, items: Iterator[Any], first: int, epoch: int) -> Iterator[Any]:
        """Refuse an end of what `part` gives before the place up to which it had come."""
        if not self.resumed or epoch != self._epoch:
            return items
        error = partial(shorter, part, epoch, recovers=self.body.recovers)
        return proven(items, first, part.least, error)

    def _watched(self, number: int, owner: int, items: Any, context: Context | None) -> Any:
        if self._watcher is None:
            return items
        cursor = self.cursors.get(number)
        first = 0 if cursor is None else cursor.position
        watched = Watched(number, self._body.parts[number], self._epoch, first, context)
        return self._layer(owner, self._watcher.watch(watched, items))

    def _layer(self, owner: int, items: Any) -> Any:
        self._layers.setdefault(owner, []).append(items)
        return items


_EVERYBODY = -1
"""Instead of the number of an output: what several read."""


def _readers(body: Body) -> list[int]:
    readers = [0] * len(body.parts)
    for part in body.parts:
        for one in part.inputs:
            readers[one] += 1
    for one in body.outputs:
        readers[one] += 1
    return readers


def _nothing(number: int, part: Part, epoch: int) -> Iterator[Any]:
    raise AssertionError("a chain is started once")
