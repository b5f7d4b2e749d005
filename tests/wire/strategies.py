"""Values of the wire format, for hypothesis, and whether two are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

SIMPLE_TYPES = st.one_of(
    arrays_of.boolean_dtypes(),
    arrays_of.integer_dtypes(endianness="?"),
    arrays_of.unsigned_integer_dtypes(endianness="?"),
    arrays_of.floating_dtypes(endianness="?"),
    arrays_of.complex_number_dtypes(endianness="?"),
    arrays_of.datetime64_dtypes(endianness="?"),
    arrays_of.timedelta64_dtypes(endianness="?"),
    arrays_of.byte_string_dtypes(endianness="?"),
    arrays_of.unicode_string_dtypes(endianness="?"),
)
TYPES = st.one_of(
    SIMPLE_TYPES,
    arrays_of.array_dtypes(SIMPLE_TYPES, allow_subarrays=True),
    arrays_of.nested_dtypes(SIMPLE_TYPES, max_leaves=4, max_itemsize=200).filter(
        lambda dtype: dtype.subdtype is None
    ),
)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """An array of any type and shape, and of any bytes: with strides, too."""
    dtype = draw(TYPES)
    shape = draw(arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    count = int(np.prod(shape)) * dtype.itemsize
    data = draw(st.binary(min_size=count, max_size=count)) if count < 200 else bytes(count)
    array = np.ndarray(shape, dtype, buffer=data)
    if dtype.kind == "b":
        array = array.view("u1").astype(bool)  # a byte that is neither 0 nor 1 is no bool
    return array[::2].T if array.ndim and draw(st.booleans()) else array


KEYS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
)
HASHABLE = st.recursive(KEYS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
SCALARS = st.one_of(
    st.floats(width=32).map(np.float32),
    st.integers(0, 255).map(np.uint8),
    st.booleans().map(np.bool_),
    st.text(max_size=5).map(np.str_),
    st.binary(max_size=5).map(np.bytes_),
    st.integers(-(2**62), 2**62).map(lambda number: np.datetime64(number, "us")),
)
LEAVES = st.one_of(KEYS, st.floats(), SCALARS, arrays())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.dictionaries(st.text(max_size=4), inner, max_size=4),
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal to the bit, and of the same types all through."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left), list(right)) and same([*left.values()], [*right.values()])
    if isinstance(left, np.str_):
        return str.__eq__(left, right)
    if isinstance(left, np.ndarray | np.generic):
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, float):
        return left.hex() == right.hex()
    return bool(left == right)
