"""`route`: what happens to an item depends on the item.

Rules:
- outputs come in the order of their inputs, whichever branch they went through;
- every stage of a branch treats each item by itself, so that the whole may have several workers;
- an item for which there is no branch is an error, goes to the branch that was named for it, or is
  dropped and counted, as the user said.

Items of one label that follow one another go through their branch as one stream.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Context, InnerContext, Operation
from splitpipe.pipeline.stages.checks import function, settle
from splitpipe.pipeline.stages.policy import leave_out_of

__all__ = ["Route"]

_NOTHING = object()


@dataclass(frozen=True)
class Route(Operation):
    """Each item through the stages of the branch that `key` says.

    Args:
        key: a function of an item that returns a label.
        branches: label -> the operations of its branch, in order; none passes items on as they are.
        other: what becomes of an item whose label is not among them: ``"raise"``; the label of the
            branch that it goes through; or None: it is dropped.
    """

    key: Callable[[Any], Hashable]
    branches: Mapping[Any, Sequence[Operation]]
    other: Any = "raise"
    per_item: ClassVar[bool] = True

    def __post_init__(self) -> None:
        function("key", self.key)
        if not self.branches or not hasattr(self.branches, "items"):
            raise GraphError(f"route needs a dict of branches, not {self.branches!r}")
        if "raise" in self.branches:
            raise GraphError("a branch cannot be called 'raise': that is what other= may say")
        made = {label: tuple(operations) for label, operations in self.branches.items()}
        for label, operations in made.items():
            for operation in operations:
                if not operation.per_item:
                    raise GraphError(
                        f"{operation.label!r} in branch {label!r} of a route needs a whole stream; "
                        "put it behind the route, or split the stream with filter and join it again"
                    )
                left_out = leave_out_of(getattr(operation, "policy", None))
                if left_out is not None and left_out.budget is not None:
                    raise GraphError(
                        f"{operation.label!r} in branch {label!r} of a route has a budget of its "
                        "own; a budget is of a whole stage: give it to the route, on_error="
                    )
        if self.other not in ("raise", None) and self.other not in made:
            raise GraphError(
                f"other must be 'raise', None, or one of the labels {list(made)}, "
                f"not {self.other!r}"
            )
        settle(self, branches=made)

    @property
    def label(self) -> str:
        return "route"

    @property
    def random(self) -> bool:
        return any(one.random for operations in self.branches.values() for one in operations)

    @property
    def places(self) -> bool:
        return any(one.places for operations in self.branches.values() for one in operations)

    @property
    def ratio(self) -> int | None:
        ratios = {one.ratio for operations in self.branches.values() for one in operations}
        return 1 if ratios <= {1} and self.other is not None else None

    @property
    def measures(self) -> tuple[str, ...]:
        own = [_to(label) for label in self.branches]
        inner = [
            name
            for operations in self.branches.values()
            for one in operations
            for name in one.measures
        ]
        return tuple(dict.fromkeys(own + inner))

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        contexts = {
            label: [InnerContext(context, f"{label}/{n}") for n in range(len(operations))]
            for label, operations in self.branches.items()
        }
        sorting = _Sorting(self, items, context)
        while (label := sorting.next_label()) is not _NOTHING:
            before = sorting.taken
            with ExitStack() as layers:
                stream = sorting.run(label)
                for operation, inner in zip(self.branches[label], contexts[label], strict=True):
                    layers.callback(getattr(stream, "close", _nothing))
                    stream = operation.run([stream], inner)
                layers.callback(getattr(stream, "close", _nothing))
                yield from stream
            if sorting.taken == before:
                raise GraphError(f"branch {label!r} of a route did not take the item it was given")


class _Sorting:
    """The items, and the label of the next one.

    Args:
        route: says which label an item has.
        items: of all labels.
        context: counts.
    """

    def __init__(self, route: Route, items: Iterator[Any], context: Context) -> None:
        self._route = route
        self._items = items
        self._context = context
        self._item: Any = _NOTHING
        self._label: Any = _NOTHING
        self.taken = 0

    def next_label(self) -> Any:
        """Return the label of the next item, which waits to be run; `_NOTHING` at the end."""
        while self._item is _NOTHING:
            self._item = next(self._items, _NOTHING)
            if self._item is _NOTHING:
                return _NOTHING
            self._label = self._branch(self._item)
            if self._label is _NOTHING:
                self._item = _NOTHING
                self._context.dropped += 1
        return self._label

    def run(self, label: Any) -> Iterator[Any]:
        """Yield items as long as they have this label."""
        name = _to(label)
        while (found := self.next_label()) is label or (found is not _NOTHING and found == label):
            item, self._item, self._label = self._item, _NOTHING, _NOTHING
            self.taken += 1
            self._context.measured[name] += 1
            yield item
            del item

    def _branch(self, item: Any) -> Any:
        route = self._route
        label = route.key(item)
        try:
            known = label in route.branches
        except TypeError as error:
            raise ValueError(f"route: {label!r} cannot be a label: {error}") from error
        if known:
            return label
        if route.other == "raise":
            raise ValueError(
                f"route: an item has the label {label!r}; there are branches for "
                f"{list(route.branches)}; say other= to name one for all others"
            )
        return _NOTHING if route.other is None else route.other


def _to(label: Any) -> str:
    return f"to {label}"


def _nothing() -> None:
    """There is nothing to close."""
