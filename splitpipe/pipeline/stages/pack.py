"""`pack`: short sequences side by side in rows of one length, so that hardly any of it is padding.

Responsible for: `Pack`, `Packing` (what goes together) and `Layout` (how it lies in a pack). The
planning itself is in `packing`.

Rules:
- every sequence comes out whole, in one pack, or cut into pieces where that was said; what is left
  out because it is too long is counted;
- sequences are planned a window at a time, each window by itself: that many are held;
- what sequences have (``tokens``) and what packs take (``padded``) is measured: see
  `padding_waste`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import GraphError
from splitpipe.pipeline.allocate import empty
from splitpipe.pipeline.stages.base import Context, Operation, Progress
from splitpipe.pipeline.stages.checks import choice, function, settle, whole
from splitpipe.pipeline.stages.packing import STRATEGIES, plan_packs
from splitpipe.pipeline.stages.padding import filler

__all__ = ["Layout", "Pack", "Packing"]

TOKENS = "tokens"
"""What the column of sequences without a name is called in a pack."""

_MADE = ("segment_ids", "position_ids", "lengths")


@dataclass(frozen=True)
class Packing:
    """Which sequences share a pack.

    Args:
        length: of every pack.
        strategy: ``"best_fit_decreasing"``, ``"best_fit"``, ``"first_fit"`` (see `plan_packs`), or
            ``"concat"``: one after the other, cut wherever a pack is full, so that only the last
            pack has padding.
        window: how many sequences are planned together.
        too_long: what becomes of a sequence that is longer than a pack: ``"raise"``, ``"split"``
            (into pieces, all but the last as long as a pack) or ``"drop"`` (it is counted).
    """

    length: int
    strategy: str = "best_fit_decreasing"
    window: int = 1024
    too_long: str = "raise"

    def __post_init__(self) -> None:
        settle(
            self,
            length=whole("length", self.length, least=1),
            window=whole("window", self.window, least=1),
        )
        choice("strategy", self.strategy, (*STRATEGIES, "concat"))
        choice("too_long", self.too_long, ("raise", "split", "drop"))


@dataclass(frozen=True)
class Layout:
    """How sequences of tokens lie in a pack.

    A pack is a dict: for every column an array of the pack's length, sequences side by side and
    padding behind them; ``segment_ids`` (int32: 1 for the tokens of the first sequence, 2 for those
    of the second, 0 for padding), ``position_ids`` (int32: the number of each token in its
    sequence, or in the piece of it) and ``lengths`` (int32: of the sequences). What else items had
    comes as lists with one value for each sequence.

    Args:
        columns: of an item that are sequences, all equally long; None: the item itself is one, and
            its column is called ``tokens``.
        pad: what is behind the sequences: one value, or a dict of one for each column.
        separator: is put behind every sequence: None, one value, or a dict of one for each column.
    """

    columns: str | tuple[str, ...] | None = None
    pad: Any = 0
    separator: Any = None

    def __post_init__(self) -> None:
        names = self.names
        if not names or len(set(names)) < len(names):
            raise GraphError(f"pack needs the names of different columns, not {names}")
        if set(names) & set(_MADE):
            raise GraphError(f"pack makes columns {', '.join(_MADE)} itself")
        for what in ("pad", "separator"):
            given = getattr(self, what)
            if isinstance(given, Mapping) and given.keys() != set(names):
                raise GraphError(f"{what} must have one value for each of {list(names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns are called in a pack."""
        if self.columns is None:
            return (TOKENS,)
        return (self.columns,) if isinstance(self.columns, str) else tuple(self.columns)

    def value(self, what: str, name: str) -> Any:
        """Return ``pad`` or ``separator`` of a column."""
        given = getattr(self, what)
        return given[name] if isinstance(given, Mapping) else given


class _Sequence(NamedTuple):
    """A sequence, or a piece of one."""

    arrays: tuple[NDArray[Any], ...]
    beside: dict[str, Any]

    def cut(self, start: int, stop: int) -> _Sequence:
        if start == 0 and stop == len(self.arrays[0]):
            return self
        return _Sequence(tuple(array[start:stop] for array in self.arrays), self.beside)


@dataclass(frozen=True)
class Pack(Operation):
    """Sequences side by side in packs of one length.

    Args:
        packing: which sequences share a pack.
        layout: how they lie in it.
        measure: instead: items are anything; this function says how long one is (a whole number),
            and a pack is the list of its items.
    """

    packing: Packing
    layout: Layout = field(default_factory=Layout)
    measure: Callable[[Any], int] | None = None
    holds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.measure is not None:
            function("measure", self.measure)
            if self.packing.strategy == "concat" or self.packing.too_long == "split":
                raise GraphError("only sequences of tokens can be cut; leave out measure=")

    @property
    def label(self) -> str:
        return f"pack({self.packing.length})"

    @property
    def measures(self) -> tuple[str, ...]:
        return ("sequences", "packs", "tokens", "padded")

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        measure = self.measure
        sized: Iterator[tuple[Any, int]]
        finish: Callable[[list[Any]], Any]
        if measure is not None:
            sized, finish = ((item, measure(item)) for item in items), list
        else:
            sized, finish = (
                _sized(items, self.layout),
                _Press(self.packing.length, self.layout).pack,
            )
        mark = _Mark(context.begun(), **(context.start.state or {}))
        pieces = self._fitting(sized, mark, context)
        packs = self._end_to_end(pieces, mark) if self._cuts else self._planned(pieces, mark)
        measured = context.measured
        context.tell = mark.tell
        for pack, tokens in packs:
            measured["packs"] += 1
            measured["tokens"] += tokens
            measured["padded"] += self.packing.length
            made = finish(pack)
            del pack
            yield made
            del made

    @property
    def _cuts(self) -> bool:
        return self.packing.strategy == "concat"

    def _fitting(
        self, sized: Iterable[tuple[Any, int]], mark: _Mark, context: Context
    ) -> Iterator[tuple[Any, int]]:
        """Yield what fits into a pack, and its length: whole sequences, or pieces of them."""
        most, too_long, begin = self.packing.length, self.packing.too_long, mark.piece
        for number, (sequence, length) in enumerate(sized, mark.number):
            context.measured["sequences"] += 1
            mark.number, mark.piece = number + 1, 0
            if length <= most or self._cuts:
                yield sequence, length
            elif too_long == "split":
                for piece, start in enumerate(range(0, length, most)):
                    if piece < begin:
                        continue
                    stop = min(start + most, length)
                    last = stop == length
                    mark.number, mark.piece = number + last, 0 if last else piece + 1
                    yield sequence.cut(start, stop), stop - start
            elif too_long == "drop":
                context.dropped += 1
            else:
                raise ValueError(
                    f"sequence {number} has a length of {length} and does not fit into a pack of "
                    f"{most}; say too_long='split' or too_long='drop', or cut it before"
                )
            begin = 0
            del sequence

    def _planned(
        self, pieces: Iterator[tuple[Any, int]], mark: _Mark
    ) -> Iterator[tuple[list[Any], int]]:
        while True:
            mark.begin()
            window = list(islice(pieces, self.packing.window))
            if not window:
                return
            lengths = np.array([length for _, length in window])
            plan = plan_packs(lengths, self.packing.length, self.packing.strategy)
            totals = np.bincount(plan, lengths).astype(np.int64).tolist()
            left: list[Any] = [piece for piece, _ in window]
            del window
            order = np.argsort(plan, kind="stable")
            ends = np.cumsum(np.bincount(plan)).tolist()
            start = 0
            for stop, total in zip(ends, totals, strict=True):
                pack = []
                for place in order[start:stop].tolist():
                    pack.append(left[place])
                    left[place] = None
                start = stop
                mark.given += 1
                yield pack, total
                del pack

    def _end_to_end(
        self, pieces: Iterator[tuple[Any, int]], mark: _Mark
    ) -> Iterator[tuple[list[Any], int]]:
        most = self.packing.length
        pack: list[Any] = []
        room, begin = most, mark.offset
        for sequence, length in pieces:
            start, begin = begin, 0
            while True:
                stop = min(start + room, length)
                pack.append(sequence.cut(start, stop))
                room -= stop - start
                start = stop
                if room:
                    break
                mark.begin(back=start < length, offset=start)
                yield pack, most
                pack, room = [], most
                if start == length:
                    break
        if pack:
            mark.begin()
            yield pack, most - room


@dataclass(slots=True)
class _Mark:
    """Where the pieces come from that were not used yet, and where to begin again.

    Attributes:
        number: of the sequence that is next.
        piece: of it.
        offset: in it, where packs are put end to end.
        given: packs that came out since `begin`.
    """

    number: int
    piece: int = 0
    offset: int = 0
    given: int = 0
    again: tuple[int, int, int] = (0, 0, 0)

    def begin(self, *, back: bool = False, offset: int = 0) -> None:
        """What comes from here on can be made without what came before.

        Args:
            back: whether the sequence before the next one is not used up.
            offset: up to where it is.
        """
        self.again = (self.number - back, self.piece, offset if back else 0)
        self.given = 0

    def tell(self) -> Progress:
        """See `Context.tell`."""
        number, piece, offset = self.again
        taken = self.number + (self.piece > 0)
        return Progress((number,), {"piece": piece, "offset": offset}, self.given, (taken,))


def _sized(items: Iterator[Any], layout: Layout) -> Iterator[tuple[_Sequence, int]]:
    """Yield the sequences of items, with their separators, and their lengths."""
    names = layout.names
    for item in items:
        if layout.columns is None:
            columns, beside = {TOKENS: item}, {}
        else:
            missing = [name for name in names if not isinstance(item, dict) or name not in item]
            if missing:
                raise ValueError(f"pack: an item has no columns {missing}: {_shown(item)}")
            columns = {name: item[name] for name in names}
            beside = {name: value for name, value in item.items() if name not in columns}
        arrays = tuple(_tokens(name, column, layout) for name, column in columns.items())
        if len(set(map(len, arrays))) > 1:
            lengths = dict(zip(columns, map(len, arrays), strict=True))
            raise ValueError(f"pack: the columns of an item have different lengths: {lengths}")
        del item, columns
        yield _Sequence(arrays, beside), len(arrays[0])


def _tokens(name: str, column: Any, layout: Layout) -> NDArray[Any]:
    array = np.asarray(column)
    if isinstance(column, list) and not column:
        array = array.astype(np.int64)
    if array.ndim == 0 or array.dtype.hasobject:
        raise ValueError(f"pack: {name} must be an array or a list of numbers: {_shown(column)}")
    separator = layout.value("separator", name)
    if separator is None:
        return array
    end = np.full((1, *array.shape[1:]), filler(separator, array.dtype, f", {name}"), array.dtype)
    return np.concatenate([array, end])


class _Press:
    """Makes a pack of sequences.

    Args:
        length: of it.
        layout: of it.
    """

    def __init__(self, length: int, layout: Layout) -> None:
        self._length = length
        self._layout = layout

    def pack(self, sequences: list[_Sequence]) -> dict[str, Any]:
        """Return the pack of `sequences`."""
        length, made = self._length, dict[str, Any]()
        lengths = np.fromiter((len(one.arrays[0]) for one in sequences), np.int64, len(sequences))
        total = int(lengths.sum())
        for column, name in enumerate(self._layout.names):
            made[name] = self._side_by_side(name, [one.arrays[column] for one in sequences], total)
        segments = made["segment_ids"] = empty(length, np.int32)
        segments[:total] = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
        segments[total:] = 0
        positions = made["position_ids"] = empty(length, np.int32)
        np.subtract(
            np.arange(total, dtype=np.int32),
            np.repeat((np.cumsum(lengths) - lengths).astype(np.int32), lengths),
            out=positions[:total],
        )
        positions[total:] = 0
        made["lengths"] = lengths.astype(np.int32)
        for name in sequences[0].beside:
            if name in made:
                raise ValueError(f"pack makes a column {name!r} itself; rename the item's with map")
            made[name] = [one.beside[name] for one in sequences]
        return made

    def _side_by_side(self, name: str, arrays: list[NDArray[Any]], total: int) -> NDArray[Any]:
        first = arrays[0]
        for array in arrays:
            if array.dtype != first.dtype or array.shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"pack: {name} is {first.dtype} of shape {first.shape} in one item, and "
                    f"{array.dtype} of shape {array.shape} in another; make them alike with map"
                )
        made = empty((self._length, *first.shape[1:]), first.dtype)
        np.concatenate(arrays, out=made[:total])
        if total < self._length:
            pad = filler(self._layout.value("pad", name), first.dtype, f", {name}")
            made[total:] = pad
        return made


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
