"""Marking functions and classes as modules.

Responsible for: the decorators that an operator writes, and `Mark`, what they leave.

Rules:
- a marked function or class stays what it is: it can be called and tested as before;
- marking checks what can be seen at once; parameters are looked at where modules are described.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

__all__ = ["KINDS", "Mark", "categorizer", "collater", "filter", "mark_of", "preprocessor"]

KINDS = ("filter", "categorizer", "collater", "preprocessor")

T = TypeVar("T", bound=Callable[..., Any])

_ATTRIBUTE = "__splitpipe_module__"


class Mark(NamedTuple):
    """What a function or class is marked as.

    Attributes:
        kind: one of `KINDS`.
        name: what it is called in descriptions of iterations.
    """

    kind: str
    name: str


@overload
def filter(function: T, /) -> T: ...


@overload
def filter(*, name: str) -> Callable[[T], T]: ...


def filter(function: Any = None, /, *, name: str | None = None) -> Any:
    """Mark what is called with a sample and says whether it stays.

    Args:
        function: a function, whose other parameters are keywords; or a class, which is made with
            its parameters and called with samples.
        name: what it is called; its own name unless said.

    Example:
        >>> @filter
        ... class Every:
        ...     '''Every n-th sample by its number.'''
        ...     def __init__(self, n: int = 2) -> None:
        ...         self.n = n
        ...     def __call__(self, sample):
        ...         return sample["number"] % self.n == 0
        >>> Every(3)({"number": 9})
        True
    """
    return _marking("filter", function, name)


@overload
def categorizer(function: T, /) -> T: ...


@overload
def categorizer(*, name: str) -> Callable[[T], T]: ...


def categorizer(function: Any = None, /, *, name: str | None = None) -> Any:
    """Mark what is called with a sample and says what it is batched with: a str, an int, a bool, or
    a tuple of them. See `filter`.

    Example:
        >>> @categorizer
        ... def by_length(sample, *, width: int = 16) -> int:
        ...     return len(sample["text"]) // width
    """
    return _marking("categorizer", function, name)


@overload
def collater(function: T, /) -> T: ...


@overload
def collater(*, name: str) -> Callable[[T], T]: ...


def collater(function: Any = None, /, *, name: str | None = None) -> Any:
    """Mark what is called with the list of the samples of a batch and returns the batch. See
    `filter`.

    Example:
        >>> @collater
        ... def texts(samples):
        ...     return [sample["text"] for sample in samples]
    """
    return _marking("collater", function, name)


@overload
def preprocessor(function: T, /) -> T: ...


@overload
def preprocessor(*, name: str) -> Callable[[T], T]: ...


def preprocessor(function: Any = None, /, *, name: str | None = None) -> Any:
    """Mark what is called with a batch and returns what is delivered in its place. See `filter`.

    Example:
        >>> @preprocessor
        ... def scaled(batch, *, by: float = 1 / 255):
        ...     return {**batch, "image": batch["image"] * by}
    """
    return _marking("preprocessor", function, name)


def mark_of(made: Any) -> Mark | None:
    """Return what something is marked as itself; None where it is not."""
    found = getattr(made, "__dict__", {}).get(_ATTRIBUTE)  # a class does not inherit it
    return found if isinstance(found, Mark) else None


def _marking(kind: str, function: Any, name: str | None) -> Any:
    if function is None:
        return lambda marked: _marking(kind, marked, name)
    if not callable(function) or not hasattr(function, "__name__"):
        raise TypeError(f"@{kind} marks a function or a class, not {function!r}")
    if isinstance(function, type) and "__call__" not in dir(function):
        raise TypeError(f"@{kind} marks a class that can be called: give it a __call__")
    called = function.__name__ if name is None else name
    if not called.replace(".", "_").replace("-", "_").isidentifier():
        raise TypeError(f"a module cannot be called {called!r}: use letters, digits, _ - and .")
    setattr(function, _ATTRIBUTE, Mark(kind, called))
    return function
