"""Two items have the same digest exactly if nobody could tell them apart."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import date
from enum import Enum
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime.digest import digest
from splitpipe.transport.pickling import dump, load
from tests.runtime.comparing import frozen, kinds


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Pair:
    left: Any
    right: Any


def different() -> list[Any]:
    """Values of which no two are the same."""
    return [
        *kinds(),
        False,
        0,
        1,
        1.0,
        -0.0,
        0.0,
        "1",
        b"1",
        bytearray(b"1"),
        [1],
        (1,),
        {1},
        {"a": 1, "b": 2},
        {"b": 2, "a": 1},
        {"a": [1, 2]},
        [[1], 2],
        [1, [2]],
        Colour.RED,
        Colour.BLUE,
        Pair(1, 2),
        Pair(2, 1),
        date(2026, 1, 2),
        Fraction(1, 3),
        OrderedDict(a=1),
        deque([1]),
        np.zeros(2000),
        np.zeros((2, 1000)),
        np.zeros(2000, np.int64),
        np.ma.masked_array([1, 2], [True, False]),
        np.ma.masked_array([1, 2], [False, True]),
        int,
        len,
    ]


def test_no_two_different_values_have_the_same() -> None:
    values = different()
    marks = [digest(value) for value in values]
    for (one, left), (other, right) in combinations(zip(values, marks, strict=True), 2):
        in_other_memory = isinstance(one, np.ndarray) and frozen(one) == frozen(other)
        assert (left == right) == in_other_memory, (one, other)


def test_what_travelled_is_the_same() -> None:
    for value in different():
        assert digest(load(dump(value))) == digest(value), value


@hypothesis.given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | arrays.arrays(st.sampled_from(["f4", "i2", "?"]), arrays.array_shapes()),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_agrees_with_a_comparison_of_content(value: Any) -> None:
    again = load(dump(value))
    assert digest(again) == digest(value)
    assert digest([value]) != digest(value)
    assert frozen(again) == frozen(value)


def test_layout_in_memory_does_not_count() -> None:
    array = np.arange(60_000, dtype=np.float64).reshape(200, 300)
    spread = np.zeros((400, 300))
    spread[::2] = array
    for same in (np.asfortranarray(array), spread[::2], array.copy()):
        assert digest(same) == digest(array)
    array[7, 9] = np.nextafter(array[7, 9], np.inf)
    assert digest(array) != digest(spread[::2])


def test_what_contains_itself_ends() -> None:
    value: list[Any] = [1]
    value.append(value)
    other: list[Any] = [2]
    other.append(other)
    assert digest(value) == digest(value)
    assert digest(value) != digest(other)


def test_what_has_no_content_is_refused() -> None:
    with pytest.raises(sp.NotPicklable, match="lock"):
        digest({"lock": threading.Lock()})


def test_is_the_same_in_another_process() -> None:
    code = (
        "from splitpipe.runtime.digest import digest\n"
        "print(digest({'s': {'a', 'b', 'c'}, 'n': frozenset('xyz')}).hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {digest({"s": {"a", "b", "c"}, "n": frozenset("xyz")}).hex()}
