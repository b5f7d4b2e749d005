"""What every operation is and may ask for.

Responsible for: `Operation`, and the `Context` in which one runs.

Rules:
- an operation is lazy: it takes from its inputs only what it needs for the next output, and keeps
  nothing it need not keep; an item that it holds no longer is let go of before the next one is
  asked for (it may lie in a slot of shared memory);
- it is deterministic: what comes out depends on what goes in, on its own values, and on the
  generators of its context, never on time, on a worker's number or on a process-wide generator;
- it says what the planner must know: whether each item stands for itself (`per_item`), whether
  counts are known beforehand (`ratio`), whether it asks for an item's generator (`random`) or place
  (`places`);
- a StopIteration that user code lets slip is an error, never an end (PEP 479 sees to that: every
  `apply` is a generator);
- a per-item operation that makes several outputs of one item passes them through
  ``context.divided``;
- it can begin in the middle of an epoch, or says nothing of it and is begun at the first item: see
  `Operation.needs` and `Context.tell`;
- no item is dropped unless the user said so: what is left out is counted in ``context.dropped``,
  and what else is worth knowing in the operation's `measures`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from splitpipe.errors import ResumeError
from splitpipe.pipeline.stages.failed import Counts, Ledger
from splitpipe.pipeline.stages.random import Generators, generator

if TYPE_CHECKING:
    from splitpipe.pipeline.dealing import Numbering

__all__ = [
    "Context",
    "InnerContext",
    "Join",
    "Operation",
    "Place",
    "Progress",
    "Start",
    "name_of",
]


class Place:
    """Which item is being treated: the number that its nearest numbering ancestor gave it, and
    which of its parts.

    Items are numbered, from 0 in every epoch, by sources and by every operation that is not
    `per_item`. What per-item stages make of one keeps its number; where they make several, `part`
    tells them apart.
    """

    __slots__ = ("number", "part")

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.part = 0

    def mark(self, items: Iterator[Any], numbers: Iterator[int] | None = None) -> Iterator[Any]:
        """Yield `items` and number them: with `numbers`, where those of several ranks have to be
        told apart, else beginning with the current number.
        """
        if numbers is None:
            for self.number, item in enumerate(items, self.number):  # noqa: B020 - it counts here
                self.part = 0
                yield item
                del item
            return
        for item in items:
            self.number, self.part = next(numbers), 0
            yield item
            del item

    def divide(self, outputs: Iterable[Any]) -> Iterator[Any]:
        """Yield `outputs`, all made of the current item, and tell them apart."""
        whole = self.part
        for index, output in enumerate(outputs):
            self.part = _mixed(whole + index + 1)
            yield output
            del output


def _mixed(value: int) -> int:
    """A bijection of 64-bit numbers (the finaliser of SplitMix64): parts of parts differ too."""
    value &= 2**64 - 1
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 2**64 - 1
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 2**64 - 1
    return value ^ (value >> 31)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a node of the graph begins in an epoch that is resumed.

    Attributes:
        first: number of the first item that it gives; of a source, its first position.
        reads: for each input, the number of the first item that it is given of it.
        state: what the stage said of itself when it was there; None where it says nothing.
    """

    first: int = 0
    reads: tuple[int, ...] = ()
    state: Any = None


BEGINNING = Start()
"""Of every node in an epoch that is not resumed."""


class Progress(NamedTuple):
    """How a stage can be brought to where it is: what `Context.tell` returns.

    Attributes:
        reads: for each input, the number of the item from which it has to be read again.
        state: what it needs beside, in values of JSON.
        back: how many of the items that it has given it will give again.
        taken: for each input, how far it has been read; None: as far as `reads`.
    """

    reads: tuple[int, ...]
    state: Any = None
    back: int = 0
    taken: tuple[int, ...] | None = None


class Context:
    """What a running stage is told, and what it tells: one a stage and epoch.

    Args:
        stage: its name.
        seed: of the pipeline.
        epoch: which pass over the source.
        place: of the item that is being treated; None where no stage asked for it.
        measures: the operation's.
        kept: what the stage keeps from one epoch to the next: the same dict for every epoch that
            runs in this process, empty in the first; None where nothing outlives an epoch.
        ledger: where it enters items that failed and are left out.

    Attributes:
        dropped: items that were left out on purpose.
        measured: what was counted beside, by name.
        start: where the stage begins; not at the first item where an epoch is resumed.
        tell: set by operations that can say where they are: what returns it while the operation
            waits at a ``yield``.
        counts: of a stage with a policy (`splitpipe.pipeline.stages.guarded`).
    """

    __slots__ = (
        "_generators",
        "counts",
        "dropped",
        "epoch",
        "kept",
        "ledger",
        "measured",
        "place",
        "seed",
        "stage",
        "start",
        "tell",
    )

    def __init__(
        self,
        stage: str = "stage",
        *,
        seed: int = 0,
        epoch: int = 0,
        place: Place | None = None,
        measures: Sequence[str] = (),
        kept: dict[str, Any] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.stage = stage
        self.ledger = Ledger() if ledger is None else ledger
        self.counts = Counts()
        self.kept: dict[str, Any] = {} if kept is None else kept
        self.seed = seed
        self.epoch = epoch
        self.place = place
        self._generators: Generators | None = None
        self.dropped = 0
        self.measured: dict[str, float] = defaultdict(float, dict.fromkeys(measures, 0.0))
        self.start = BEGINNING
        self.tell: Callable[[], Progress | None] | None = None

    def begun(self, number: int = 0) -> int:
        """Return the number of the first item of an input: 0, unless an epoch is resumed."""
        return self.start.reads[number] if self.start.reads else 0

    def check_reread(self, count: int, taken: int) -> None:
        """See that what a stage had read before it was resumed has come again.

        Raises:
            ResumeError: the input ended after `count` items, of which `taken` had been read.
        """
        if count < taken:
            raise ResumeError(
                f"what {self.stage!r} reads ended epoch {self.epoch} after {count} items; {taken} "
                "of them were read when the state was taken: it has become shorter. Give it back "
                "what it had, or begin the epoch anew"
            )

    def rng(self) -> np.random.Generator:
        """Return the generator of this stage for the whole epoch; a new one, at its beginning."""
        return generator(self.seed, self.stage, self.epoch)

    def item_rng(self) -> np.random.Generator:
        """Return the generator for the item that is being treated, at its beginning."""
        place = self.place
        assert place is not None, "a stage that wants a generator has to say so (`random`)"
        return self.rng_at(place.number, place.part)

    def rng_at(self, number: int, part: int) -> np.random.Generator:
        """Return the generator for the item of this place, at its beginning."""
        if self._generators is None:
            self._generators = Generators(self.seed, self.stage, self.epoch)
        return self._generators.at(number, part)

    def follow(self, earlier: Context) -> None:
        """Count on where `earlier`, of another pass over the stage, has come to."""
        self.dropped, self.measured = earlier.dropped, earlier.measured
        self.counts = earlier.counts

    def divided(self, outputs: Iterable[Any]) -> Iterable[Any]:
        """Return `outputs`, all made of one item by an operation that is `per_item`."""
        return outputs if self.place is None else self.place.divide(outputs)


class InnerContext(Context):
    """The context of an operation inside of a stage: it draws numbers of its own, and what it
    counts is counted by the stage.

    Args:
        outer: the stage's.
        name: of the operation, inside of the stage.
    """

    __slots__ = ("_outer",)

    def __init__(self, outer: Context, name: str) -> None:
        self._outer = outer
        super().__init__(
            f"{outer.stage}/{name}",
            seed=outer.seed,
            epoch=outer.epoch,
            place=outer.place,
            kept=outer.kept.setdefault(name, {}),
            ledger=outer.ledger,
        )
        self.measured = outer.measured
        self.counts = Counts(outer=outer.counts)

    @property
    def dropped(self) -> int:
        return self._outer.dropped

    @dropped.setter
    def dropped(self, count: int) -> None:
        self._outer.dropped = count


class Operation(ABC):
    """What a stage with one input does."""

    per_item: ClassVar[bool] = False
    """Each input item is treated by itself: several workers may share the stage."""

    holds: ClassVar[bool] = False
    """It keeps input items while it asks for more of them: they should not lie in memory that is
    lent for one item at a time."""

    first_epoch: ClassVar[bool] = False
    """What lies before it is run as epoch 0, whichever epoch it is."""

    ahead: ClassVar[bool] = False
    """It may have read more of its inputs than `needs` says of what it has given, or less: it tells
    how much (`Context.tell`, of which only ``taken`` counts)."""

    accuses: ClassVar[bool] = False
    """It asks the ledger which items not to treat (`Ledger.blame`), though it has no policy."""

    leaves_out: ClassVar[bool] = False
    """Every item comes out as one, or is counted in ``context.dropped``, and nothing else is."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what it counts in ``context.measured``; sums over workers and epochs."""
        return ()

    @property
    def ratio(self) -> int | None:
        """How many input items make one output item; None when only running it tells."""
        return None

    def needs(self, output: int) -> int | None:
        """Return from which input item on it can be run to give item `output` and those behind it;
        of all its inputs. None: only running tells. It is given that number as ``context.start``.
        """
        return None if self.ratio is None else output * self.ratio

    def least(self, output: int) -> int:
        """Return how many items each of its inputs must have had where it has given `output`, as
        far as that follows from the counts alone: who goes on there sees by it that an input has
        become shorter. 0: nothing follows.
        """
        if self.leaves_out or not output:
            return output
        return 0 if self.ratio is None else (output - 1) * self.ratio + 1

    def complete(self, kept: dict[str, Any]) -> bool:
        """Whether it has all that its inputs would give: nobody needs to begin with them.

        Args:
            kept: what the stage keeps from epoch to epoch: ``Context.kept``.
        """
        return False

    @property
    def random(self) -> bool:
        """Whether it calls ``context.item_rng``."""
        return False

    @property
    def places(self) -> bool:
        """Whether it asks which item it treats (``context.place``)."""
        return self.random

    @property
    def reopens(self) -> bool:
        """Whether it calls ``again()`` of its inputs, which begins them anew."""
        return False

    @property
    def numbering(self) -> Numbering | None:
        """Which numbers its items have, and those of everything behind it; None: as they come."""
        return None

    @property
    @abstractmethod
    def label(self) -> str:
        """The name of the stage unless the user gives one."""

    @property
    def kind(self) -> str:
        """What it is called in a description."""
        return type(self).__name__.lower()

    def run(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        """Return the outputs for `inputs`: what whoever runs a graph calls."""
        (items,) = inputs
        return self.apply(items, context)

    @abstractmethod
    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        """Yield the outputs for `items`."""


class Join(Operation):
    """What a stage with several inputs does: `apply_all` instead of `apply`."""

    def run(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        return self.apply_all(inputs, context)

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        return self.apply_all([items], context)

    @abstractmethod
    def apply_all(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        """Yield the outputs for `inputs`."""

    def length(self, lengths: Sequence[int]) -> int | None:
        """Return how many items come out where the inputs have `lengths`; None: only running
        tells.
        """
        return None


def name_of(function: Callable[..., Any]) -> str:
    """Return what a stage that runs `function` is called."""
    return getattr(function, "__name__", None) or type(function).__name__
