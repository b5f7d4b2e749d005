"""`tee` and `route`: where a stream parts.

Responsible for: the operations at the place where it does. Using a pipeline twice is a branch by
itself; these say how far branches may be apart, and which items belong to which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation, name_of

__all__ = ["Label", "Pick", "Tee"]


@dataclass(frozen=True)
class Tee(Operation):
    """Every item as it is: a place to read several times."""

    per_item: ClassVar[bool] = True

    @property
    def ratio(self) -> int | None:
        return 1

    @property
    def label(self) -> str:
        return "tee"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        yield from items


@dataclass(frozen=True)
class Label(Operation):
    """Each item with the label that `key` gives it; one that is none of `labels` is an error, or,
    with `drop`, left out and counted.
    """

    key: Callable[[Any], Any]
    labels: tuple[Any, ...]
    drop: bool = False
    per_item: ClassVar[bool] = True
    leaves_out: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return f"route({name_of(self.key)})"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        key, labels = self.key, frozenset(self.labels)
        for item in items:
            found = key(item)
            if found in labels:
                yield found, item
            elif self.drop:
                context.dropped += 1
            else:
                raise ValueError(
                    f"route: {found!r} is none of the branches "
                    f"{', '.join(map(repr, self.labels))}; add one, or say other='drop'"
                )
            del item


@dataclass(frozen=True)
class Pick(Operation):
    """The items of one label, without it."""

    wanted: Any
    per_item: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return f"{self.wanted}"

    def wants(self, item: Any) -> bool:
        """Whether a labelled item is one of this branch: others need not be kept for it."""
        return bool(item[0] == self.wanted)

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        wanted = self.wanted
        for found, item in items:
            if found == wanted:
                yield item
            del item
