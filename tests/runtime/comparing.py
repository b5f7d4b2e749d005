"""What the tests of the runtime share: values of every kind, and when two of them are equal."""

from __future__ import annotations

import math
from collections import Counter, namedtuple
from collections.abc import Iterable
from typing import Any

import numpy as np

import splitpipe as sp

Point = namedtuple("Point", "x label")


def frozen(value: Any) -> Any:
    """Return `value` as something that is equal only if type, dtype, shape and content are."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            content: Any = tuple(frozen(one) for one in value.ravel().tolist())
        else:
            content = value.tobytes()
        return ("array", str(value.dtype.descr), value.shape, content)
    if isinstance(value, dict):
        return ("dict", tuple((key, frozen(one)) for key, one in value.items()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return (type(value).__name__, tuple(frozen(one) for one in value))
    if isinstance(value, float) and math.isnan(value):
        return (type(value).__name__, "nan")
    return (type(value).__name__, bytes(value) if isinstance(value, bytearray) else value)


def all_frozen(values: Iterable[Any]) -> list[Any]:
    """Freeze each value when it comes, and keep none of them."""
    made = []
    for value in values:
        made.append(frozen(value))
        del value
    return made


def counted(values: Iterable[Any]) -> Counter[Any]:
    """The values as a multiset."""
    return Counter(all_frozen(values))


def read(loader: sp.Loader) -> tuple[list[Any], BaseException | None]:
    """The items up to the end or the error, and the error."""
    got: list[Any] = []
    with loader:
        try:
            for item in loader:
                got.append(item)  # noqa: PERF402  what came before an error counts
        except BaseException as error:
            return got, error
    return got, None


def kinds() -> list[Any]:
    """One value of every kind that has ever been lost on its way between two processes."""
    big = np.arange(300_000, dtype=np.float32)
    record = np.zeros(500, [("x", "<f8"), ("y", "<i4", (2,)), ("s", "S5")])
    record["x"] = np.arange(500)
    return [
        None,
        True,
        -7,
        2**100,
        0.5,
        float("nan"),
        1j,
        "",
        "text \U0001f600",
        b"",
        bytes(1000),
        b"x" * 1_000_000,
        bytearray(5000),
        (),
        [],
        {},
        (1, (2, [3, {"four": (5,)}])),
        Point(1, "a"),
        {"k": big[:1000], "nested": {"l": [big[:700], "s"]}},
        frozenset({1}),
        np.float32(2.5),
        np.int64(-1),
        np.array(3.0),
        np.empty((0, 4), np.int16),
        np.arange(5, dtype=">i4"),
        big.reshape(300, 1000),
        np.asfortranarray(big.reshape(300, 1000)),
        big[::3],
        big.reshape(300, 1000).T[5:50],
        record,
        np.array([1, "two", None, [3]], dtype=object),
        np.array(["a", "bcd"]),
        np.array(["2026-01-01", "NaT"], "datetime64[D]"),
        np.ones((3, 5), bool),
        (big[:512], big[:511], big[512:]),
    ]
