"""What operations check of the values they are given.

Responsible for: turning what a user wrote into the value that an operation keeps, or into a
`GraphError` that says what it must be. Nothing of the user's is called here.

Rules:
- whole numbers may be numpy's; True and False are no numbers;
- numbers are finite: neither NaN nor infinite.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from splitpipe.errors import GraphError

__all__ = ["choice", "function", "number", "settle", "whole", "wholes"]


def settle(operation: object, **values: Any) -> None:
    """Put checked values into a frozen dataclass; for its ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(operation, name, value)


def whole(what: str, value: object, *, least: int) -> int:
    """Return `value` as an int.

    Raises:
        GraphError: it is none, or less than `least`.

    Example:
        >>> whole("size", np.int16(3), least=1)
        3
        >>> whole("size", 2.5, least=1)
        Traceback (most recent call last):
        splitpipe.errors.GraphError: size must be a whole number of at least 1, not 2.5
    """
    try:
        if isinstance(value, bool | np.ndarray):
            raise TypeError
        made = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        made = least - 1
    if made < least:
        raise GraphError(f"{what} must be a whole number of at least {least}, not {value!r}")
    return made


def wholes(what: str, values: object, *, least: int) -> tuple[int, ...]:
    """Return `values` as a tuple of ints of at least `least`.

    Raises:
        GraphError: they cannot be iterated, or one of them is no such number.
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes):
        raise GraphError(f"{what} must be whole numbers of at least {least}, not {values!r}")
    return tuple(whole(f"each of {what}", value, least=least) for value in values)


def number(what: str, value: object, *, least: float, above: bool = False) -> float:
    """Return `value` as a finite float.

    Raises:
        GraphError: it is none, or less than `least`, or with `above` equal to it.
    """
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        made = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        made = math.nan
    if not math.isfinite(made) or made < least or (above and made == least):
        bound = f"above {least:g}" if above else f"of at least {least:g}"
        raise GraphError(f"{what} must be a finite number {bound}, not {value!r}")
    return made


def choice(what: str, value: object, choices: tuple[str, ...]) -> str:
    """Return `value`, one of `choices`.

    Raises:
        GraphError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise GraphError(f"{what} must be one of {', '.join(choices)}, not {value!r}")
    return value


def function(what: str, value: object) -> Callable[..., Any]:
    """Return `value`, which can be called.

    Raises:
        GraphError: it cannot.
    """
    if not callable(value):
        raise GraphError(f"{what} must be a function, not {value!r}")
    return value
