"""`MpQItr`: the smallest form of a pipeline.

Responsible for: the name and the call that users of the package split-data-loader know: one
generator, one child process, an iterator in front. It is a pipeline of one free stage and keeps
every promise of one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

from splitpipe.loader import Loader
from splitpipe.pipeline.builder import from_factory

__all__ = ["MpQItr"]

T = TypeVar("T")
P = ParamSpec("P")


class MpQItr(Generic[T]):
    """Run a generator in a child process and iterate over what it yields.

    Every ``iter()`` starts a run of its own: iterations may be repeated, nested and left early. An
    exception of the generator is raised here, at its place. A process that dies is replaced: the
    generator runs anew, and what it had given already is left out. One that dies at the same item
    three times is a `PoisonRecord`.

    Args:
        generator_function: called in the child as ``generator_function(*args, **kwargs)``.

    Source: the class of the same name in split-data-loader, which ends quietly on an exception,
    drops what cannot be pickled, and waits for ever for a killed process.

    Example:
        >>> import splitpipe as sp
        >>> def squares(n):
        ...     for i in range(n):
        ...         yield i * i
        >>> list(sp.MpQItr(squares, 5))
        [0, 1, 4, 9, 16]
    """

    def __init__(
        self, generator_function: Callable[P, Iterable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        factory: Callable[[], Iterable[Any]] = functools.partial(
            generator_function, *args, **kwargs
        )
        name = getattr(generator_function, "__name__", "generator")
        self._pipeline = from_factory(factory, name)

    def __iter__(self) -> Iterator[T]:
        loader: Loader = self._pipeline.loader(prefetch=16)
        loader.leave_quietly()
        return loader

    def __repr__(self) -> str:
        return f"MpQItr({self._pipeline.source!r})"
