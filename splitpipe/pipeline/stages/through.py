"""`through` and `stage`: a free generator over whole streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from splitpipe.pipeline.stages.base import Context, Join, name_of
from splitpipe.pipeline.stages.random import wants_rng

__all__ = ["Through"]


@dataclass(frozen=True)
class Through(Join):
    """A free generator over one or several whole streams.

    A parameter called ``rng`` gets a generator for the epoch, unless the user gave one.
    """

    function: Callable[..., Iterable[Any]]
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return name_of(self.function)

    def apply_all(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        keywords = self.keywords
        if "rng" not in keywords and wants_rng(self.function):
            keywords = {**keywords, "rng": context.rng()}
        yield from self.function(*inputs, *self.arguments, **keywords)
