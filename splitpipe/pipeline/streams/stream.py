"""What a user says of many streams.

Responsible for: `Stream`, a source and how much of it an epoch has; `Streams`, several of them and
in which turn they come. Both are values: describing them opens and reads nothing.

The words are those that users of the field know (MosaicML Streaming's ``Stream(proportion=,
repeat=, choose=)``), with one meaning each, that can be counted after. `Streams` is a source like a
dataset, not a stage like `splitpipe.mix`: of sources with random access the whole mixture has
random access, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from splitpipe.errors import GraphError
from splitpipe.permutation import derive_key
from splitpipe.pipeline.stages.checks import choice, number, settle, whole
from splitpipe.pipeline.streams.chain import chained
from splitpipe.pipeline.streams.counts import apportioned, rounded
from splitpipe.pipeline.streams.draws import Draws
from splitpipe.pipeline.streams.mixed import MixedOrder
from splitpipe.pipeline.streams.schedules import SCHEDULES, WITH_BATCH, schedule_of
from splitpipe.pipeline.streams.spread import MOST_BLOCKS

__all__ = ["Stream", "Streams"]

_TURNS = 0x5455524E
_STREAM = 0x53545245
"""What keys are for: whose turn it is, and what a stream gives."""

_MOST_STREAMS = (1 << 16) - 1


@dataclass(frozen=True)
class Stream:
    """A source with random access, and how much of it an epoch has.

    At most one of `proportion`, `repeat` and `choose` is said; without any, each record comes once.
    All streams of a mixture say proportions, or none does.

    Args:
        source: a dataset, local or remote, or any other sequence (a list, a range).
        proportion: its weight among all streams: its share of `Streams`' `epoch_size`, rounded down
            or up.
        repeat: so many times its records, rounded to the nearest number: 2.5 is two passes and half
            of a third.
        choose: so many samples.
        shuffle: in which order its records come: as for `Pipeline`, or False for their own; None:
            as the pipeline says.
        window: of a binwise shuffle; None: as the pipeline says.

    Raises:
        GraphError: this is no sequence, or a number cannot be meant.

    Example:
        >>> import splitpipe as sp
        >>> sp.Stream(range(10), repeat=2.5)
        Stream(range(0, 10), repeat=2.5)
    """

    source: Any
    proportion: float | None = None
    repeat: float | None = None
    choose: int | None = None
    shuffle: str | bool | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        source = self.source
        if isinstance(source, Stream | Streams | str | bytes | Mapping) or not (
            hasattr(source, "__getitem__") and isinstance(source, Sized)
        ):
            raise GraphError(
                f"a stream is of a sequence (a dataset, a list, a range), not of a "
                f"{type(source).__name__}; streams that are only read in order, as pipelines and "
                "functions are, are mixed by sp.mix"
            )
        said = [name for name in ("proportion", "repeat", "choose") if self._said(name) is not None]
        if len(said) > 1:
            raise GraphError(f"a stream says one of {' and '.join(said)}, not both")
        for name in ("proportion", "repeat"):
            if self._said(name) is not None:
                settle(self, **{name: number(name, self._said(name), least=0.0)})
        if self.choose is not None:
            settle(self, choose=whole("choose", self.choose, least=0))
        if self.window is not None:
            settle(self, window=whole("window", self.window, least=1))
        if self.shuffle is not None and self.shuffle is not False:
            choice("shuffle", self.shuffle, ("global", "binwise"))

    def _said(self, name: str) -> Any:
        return getattr(self, name)

    @property
    def count(self) -> int:
        """How many samples an epoch has of it, where it says no proportion."""
        if self.choose is not None:
            return self.choose
        return rounded(1 if self.repeat is None else self.repeat, len(self.source))

    def __repr__(self) -> str:
        names = ("proportion", "repeat", "choose", "shuffle", "window")
        said = [f"{name}={self._said(name)!r}" for name in names if self._said(name) is not None]
        return f"Stream({', '.join([f'{self.source!r:.60}', *said])})"


@dataclass(frozen=True, repr=False)
class Streams:
    """Several streams as one source, for `Pipeline`: shuffled, mixed and counted exactly.

    An epoch has exactly `counts` samples of each stream. A stream that gives more samples than it
    has records goes through all of them again, in another order; what is no whole pass is another
    part of it in every epoch, until each record was in such a part (see
    `splitpipe.pipeline.streams.draws`). Orders inside of streams are those of the pipeline's
    `shuffle` and `window`.

    Args:
        streams: or bare sequences, each once; by name, where they are to be called in messages.
        schedule: in which turn they come:

            - ``"random"``: any; of every 4096 samples each stream has its share, rounded down or
              up, in random order;
            - ``"stratified"``: every batch has each stream's share, rounded down or up; in a batch
              the streams follow each other;
            - ``"per-stream"``: every batch is of one stream, whose, is random; streams give whole
              batches, what is left over is left out of the epoch;
            - ``"round-robin"``: in turn, one sample each; a stream that has given all leaves;
            - ``"sequential"``: one stream after the other.
        batch: samples of a batch, of all ranks together, for the two schedules that look at it.
        epoch_size: samples of an epoch, with proportions; None: as many as there are records.

    Raises:
        GraphError: streams say what does not go together, or an epoch would have no sample.

    Example:
        >>> import splitpipe as sp
        >>> web, books = [f"w{n}" for n in range(6)], [f"b{n}" for n in range(2)]
        >>> parts = {"web": sp.Stream(web, proportion=3), "books": sp.Stream(books, proportion=1)}
        >>> streams = sp.Streams(parts, schedule="stratified", batch=4)
        >>> streams.counts
        (6, 2)
        >>> [list(batch) for batch in sp.Pipeline(streams).batch(4, collate=list)]
        [['w0', 'w1', 'w2', 'b0'], ['w3', 'w4', 'w5', 'b1']]
    """

    streams: Any
    schedule: str = "random"
    batch: int | None = None
    epoch_size: int | None = None
    names: tuple[str, ...] = field(init=False, default=())
    counts: tuple[int, ...] = field(init=False, default=(), compare=False)
    records: Any = field(init=False, default=None, compare=False)

    def __post_init__(self) -> None:
        names, streams = _named(self.streams)
        choice("schedule", self.schedule, SCHEDULES)
        settle(self, names=names, streams=streams)
        if self.schedule in WITH_BATCH:
            if self.batch is None:
                raise GraphError(f"schedule {self.schedule!r} needs to know batch=")
            settle(self, batch=whole("batch", self.batch, least=1))
        elif self.batch is not None:
            raise GraphError(f"schedule {self.schedule!r} knows no batches: leave batch= out")
        if self.epoch_size is not None:
            settle(self, epoch_size=whole("epoch_size", self.epoch_size, least=1))
        settle(self, counts=self._counted())
        settle(self, records=chained([stream.source for stream in streams]))

    def __len__(self) -> int:
        """Return the samples of an epoch."""
        return sum(self.counts)

    def order(self, shuffle: str | None, seed: int, epoch: int, window: int = 1) -> MixedOrder:
        """Return the order of an epoch: position -> row of `records`.

        Raises:
            GraphError: a stream cannot be shuffled so.
        """
        draws = [
            Draws(
                stream.source,
                count,
                shuffle=(stream.shuffle or None) if stream.shuffle is not None else shuffle,
                window=stream.window or window,
                seed=derive_key(seed, _STREAM, number),
                epoch=epoch,
            )
            for number, (stream, count) in enumerate(zip(self.streams, self.counts, strict=True))
        ]
        key = derive_key(seed, _TURNS, epoch)
        return MixedOrder(
            schedule_of(self.schedule, self.counts, self.batch, key), draws, self._starts()
        )

    def check(self, shuffle: str | None, window: int) -> None:
        """Refuse a shuffle that a stream cannot have.

        Raises:
            GraphError: it names the stream.
        """
        for name, draws, count in zip(
            self.names, self.order(shuffle, 0, 0, window).draws, self.counts, strict=True
        ):
            try:
                draws.indices(0, min(count, 1))
            except GraphError as error:
                raise GraphError(f"stream {name!r}: {error}") from error

    @property
    def sources(self) -> tuple[Any, ...]:
        """What is drawn from, without how much of it."""
        return tuple(stream.source for stream in self.streams)

    @property
    def most(self) -> int:
        """How often a record comes in an epoch at most."""
        pairs = zip(self.streams, self.counts, strict=True)
        return max(-(-count // max(1, len(stream.source))) for stream, count in pairs)

    def where(self, row: int) -> tuple[str, int]:
        """Return the name of the stream that a row of `records` is of, and which of its own it is.

        Example:
            >>> Streams({"a": range(3), "b": range(5)}).where(4)
            ('b', 1)
        """
        for name, first, stream in zip(self.names, self._starts(), self.streams, strict=True):
            if row < first + len(stream.source):
                return name, row - first
        raise IndexError(f"row {row} of {len(self.records)}")

    def told(self) -> dict[str, Any]:
        """Return what decides which samples come when, in values of JSON."""
        return {
            "schedule": self.schedule,
            "batch": self.batch,
            "counts": list(self.counts),
            "sizes": [len(stream.source) for stream in self.streams],
            "shuffles": [[stream.shuffle, stream.window] for stream in self.streams],
        }

    def __repr__(self) -> str:
        pairs = list(zip(self.names, self.counts, strict=True))
        shown = ", ".join(f"{name}: {count}" for name, count in pairs[:4])
        more = f", and {len(pairs) - 4} more" if len(pairs) > 4 else ""
        return f"Streams({self.schedule}, {shown}{more})"

    def _starts(self) -> list[int]:
        return [0, *accumulate(len(stream.source) for stream in self.streams)][:-1]

    def _counted(self) -> tuple[int, ...]:
        streams: Sequence[Stream] = self.streams
        relative = [stream.proportion is not None for stream in streams]
        if any(relative) and not all(relative):
            first = self.names[relative.index(False)]
            raise GraphError(
                f"all streams say a proportion, or none does: stream {first!r} says none"
            )
        if relative[0]:
            counts = self._shared()
        elif self.epoch_size is not None:
            raise GraphError(
                "epoch_size shares an epoch out by proportions; these streams say their numbers "
                "themselves (repeat, choose): leave it out, or say proportion= of each"
            )
        else:
            counts = tuple(stream.count for stream in streams)
        if self.schedule == "per-stream" and self.batch is not None:
            counts = tuple(count // self.batch * self.batch for count in counts)
        for name, stream, count in zip(self.names, streams, counts, strict=True):
            if count and not len(stream.source):
                raise GraphError(f"stream {name!r} has no records, and is to give {count} samples")
        if not sum(counts):
            raise GraphError(f"an epoch of these streams has no sample: {self.names} give {counts}")
        if sum(counts) >= MOST_BLOCKS:
            raise GraphError(
                f"an epoch of {sum(counts)} samples is too long: at most {MOST_BLOCKS}; say less, "
                "and go through more epochs"
            )
        return counts

    def _shared(self) -> tuple[int, ...]:
        """Share an epoch out by proportions; where batches are of one stream, in whole batches."""
        weights = [float(stream.proportion) for stream in self.streams]
        size = self.epoch_size or sum(len(stream.source) for stream in self.streams)
        if not any(weights):
            raise GraphError("the proportions are all 0: one stream at least must have a share")
        if self.schedule == "per-stream" and self.batch is not None:
            return tuple(n * self.batch for n in apportioned(size // self.batch, weights))
        return apportioned(size, weights)


def _named(given: Any) -> tuple[tuple[str, ...], tuple[Stream, ...]]:
    if isinstance(given, Mapping):
        names, values = tuple(map(str, given)), list(given.values())
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
        values = list(given)
        names = tuple(str(number) for number in range(len(values)))
    else:
        raise GraphError(f"streams are a list of sp.Stream, or a dict of them, not {given!r:.60}")
    if not 0 < len(values) <= _MOST_STREAMS:
        raise GraphError(f"there must be from 1 to {_MOST_STREAMS} streams, not {len(values)}")
    return names, tuple(one if isinstance(one, Stream) else Stream(one) for one in values)
