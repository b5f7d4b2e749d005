"""`mix`: the next item from an input that is chosen by weight.

Responsible for: `Mix`. How weights come about, and how an input is chosen by them, is in `weights`.

Rules:
- which input is next depends on the weights, the number of items that came out before, and the
  stage's generator: never on how fast an input is;
- only an input that is chosen is read; where an epoch ends before an input does, that was asked for
  (``stop="first"``, or weights of 0);
- an input without items is an error where it would be begun anew for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Context, Join, Progress
from splitpipe.pipeline.stages.batched import PerInput, Stratified
from splitpipe.pipeline.stages.checks import choice, number, settle, whole
from splitpipe.pipeline.stages.weights import Chooser, Even, Random, Weights

__all__ = ["Mix", "Repeatable"]

_END = object()
_OF_BATCHES = ("stratified", "per-stream")


class Repeatable(Protocol):
    """An input that can be begun anew: what ``stop="repeat"`` needs."""

    def __next__(self) -> Any: ...

    def again(self) -> Iterator[Any]:
        """Return the items of its next pass; called when the pass before has ended."""


@dataclass(frozen=True)
class Mix(Join):
    """One input's next item after the other, the input chosen by weight.

    Args:
        inputs: how many there are.
        weights: one for each, of any sum; None for equal ones. Or a schedule: pairs
            ``(step, weights)``, each valid from that step on, the first from step 0; or a function
            of the step. Steps are the items that came out in this epoch.
        temperature: weights are raised to the power 1 / `temperature` and so made more equal (above
            1) or less (below): with sizes as weights, how much more of the larger inputs is seen.
        stop: ``"all"``: an input that has ended leaves, the others go on; ``"first"``: the epoch
            ends with the first input that has no item left when it is chosen; ``"repeat"``: an
            input that has ended begins anew, until each was read to its end once.
        method: ``"random"``, or ``"even"``: as evenly as weights allow, without a generator: no
            input ever is more than one item ahead of its share; ``"stratified"``: every batch has
            each input's share, rounded down or up; ``"per-stream"``: every batch is of one input.
        batch: items of a batch, for the two methods that look at it.
    """

    inputs: int
    weights: Sequence[Any] | Callable[[int], Sequence[float]] | None = None
    temperature: float = 1.0
    stop: str = "all"
    method: str = "random"
    batch: int | None = None

    def __post_init__(self) -> None:
        settle(
            self,
            inputs=whole("inputs", self.inputs, least=1),
            temperature=number("temperature", self.temperature, least=0.0, above=True),
        )
        choice("stop", self.stop, ("first", "all", "repeat"))
        choice("method", self.method, ("random", "even", *_OF_BATCHES))
        if self.method in _OF_BATCHES:
            settle(self, batch=whole("batch", self.batch, least=1))
        elif self.batch is not None:
            raise GraphError(f"method {self.method!r} knows no batches: leave batch= out")
        settle(self, weights=Weights.settled(self.weights, self.inputs))
        self._weights()  # what is wrong with them is said now

    @property
    def label(self) -> str:
        return "mix"

    @property
    def reopens(self) -> bool:
        return self.stop == "repeat"

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(f"input {number}" for number in range(self.inputs))

    def length(self, lengths: Sequence[int]) -> int | None:
        every = self._weights().always
        return sum(lengths) if self.stop == "all" and every else None

    def apply_all(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        if len(inputs) != self.inputs:
            raise GraphError(f"mix was described with {self.inputs} inputs, and has {len(inputs)}")
        weights = self._weights()
        chooser = self._chooser(weights, context)
        wanted = {number for number in range(self.inputs) if weights.wanted(number)}
        current, ended = list(inputs), set[int]()
        measured, names = context.measured, self.measures
        step, state = context.start.first, context.start.state
        if state is not None:
            chooser.restore(state)
            ended.update(state["ended"])
        taken = [context.begun(n) - int(measured[name]) for n, name in enumerate(names)]

        def tell() -> Progress:
            reads = (n + int(measured[name]) for n, name in zip(taken, names, strict=True))
            return Progress(tuple(reads), {**chooser.tell(), "ended": sorted(ended)})

        context.tell = tell
        if ended and self.stop == "first":
            return  # it was over: who reads it may have had more to give
        choose, asks = chooser.choose, chooser.asks
        while wanted:
            chosen = choose(step)
            item = next(current[chosen], _END)
            if item is _END:
                ended.add(chosen)
                if self.stop == "first" or ended >= wanted:
                    return
                if self.stop == "all":
                    chooser.leave(chosen)
                    continue
                current[chosen] = _again(inputs[chosen], chosen)
                item = next(current[chosen], _END)
                if item is _END:
                    raise ValueError(f"mix: input {chosen} has no items to repeat")
            if asks:
                chooser.took(chosen)
            measured[names[chosen]] += 1
            step += 1
            yield item
            del item

    def _chooser(self, weights: Weights, context: Context) -> Chooser:
        if self.method == "even":
            return Even(weights)
        if self.method == "random":
            return Random(weights, context.rng())
        assert self.batch is not None
        if self.method == "stratified":
            return Stratified(weights, self.batch)
        return PerInput(weights, self.batch, context.rng())

    def _weights(self) -> Weights:
        return Weights(self.weights, self.inputs, self.temperature)


def _again(items: Any, number: int) -> Iterator[Any]:
    again = getattr(items, "again", None)
    if again is None:
        raise GraphError(
            f"mix: input {number} cannot be begun anew; say stop='all' or stop='first'"
        )
    made: Iterator[Any] = again()
    return made
