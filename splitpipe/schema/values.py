"""Whether a value fits a column.

Responsible for: `fit`, the one place that knows. What it returns is the value as a codec takes
it: an array of the column's dtype and shape, text, or the value itself.

Rules:
- a value fits when it can be stored without becoming another value: an integer out of range, a
  fraction in an integer column, a float64 array in a float32 column are refused;
- only Python's own numbers, which have no width, take the width of a float column.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.schema.field import Field, shape_text

__all__ = ["fit", "fit_array"]

_SPLIT_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def fit(field: Field, value: Any) -> Any:
    """A value, not ``None``, as its codec takes it.

    Returns:
        For ``str`` and ``json`` the UTF-8 text, for ``ndarray`` and ``scalar`` a C-contiguous,
        little-endian array, for bytes and encoded media bytes-like, else the value itself.

    Raises:
        FormatError: it does not fit.

    Example:
        >>> fit(Field("str"), "a"), fit(Field("json"), [1, None])
        (b'a', b'[1,null]')
        >>> fit(Field("scalar", "uint8"), 256)
        Traceback (most recent call last):
        splitpipe.errors.FormatError: 256 is out of the range of uint8
    """
    kind = field.kind
    if kind in ("ndarray", "scalar"):
        return fit_array(field, value)
    if kind == "str":
        return _text(value)
    if kind == "json":
        return _json(value)
    if kind == "bytes" or (kind != "pickle" and isinstance(value, bytes | bytearray | memoryview)):
        return _buffer(value)
    # To be pickled, or media that is not encoded yet: the codec knows how, with its extra.
    return value


def fit_array(field: Field, value: Any) -> npt.NDArray[Any]:
    """A value of an ``ndarray`` or ``scalar`` column as the array that is stored.

    Raises:
        FormatError: it does not fit dtype or shape.
    """
    array = _converted(value, field.numpy_dtype)
    wanted = field.shape
    if wanted is not None and (
        array.ndim != len(wanted)
        or any(w is not None and w != n for w, n in zip(wanted, array.shape, strict=True))
    ):
        hint = "" if field.kind == "scalar" else "; an axis of any length is None in the schema"
        raise FormatError(f"its shape is {shape_text(array.shape)}, not {shape_text(wanted)}{hint}")
    return np.ascontiguousarray(array).reshape(array.shape)


def _converted(value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A value as an array of a dtype, if that changes nothing about it."""
    exact = isinstance(value, np.ndarray | np.generic)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise FormatError(f"it is no array of {dtype.name}: {error}") from error
    if array.dtype == dtype:
        return array
    if not array.size and not exact:
        return array.astype(dtype)
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        return _in_range(array, dtype)
    # Python's own numbers have no width: a float fits any float column.
    weak = not exact and array.dtype.kind in "biufc" and dtype.kind in "fc"
    if np.can_cast(array.dtype, dtype, "same_kind" if weak else "safe"):
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    if exact:
        raise FormatError(
            f"a {type(value).__name__} of {array.dtype.name} does not fit {dtype.name}: convert it "
            f"first, for example with .astype('{dtype.name}')"
        )
    raise FormatError(f"{_short(value)} does not fit {dtype.name}")


def _in_range(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    limits = np.iinfo(dtype)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < limits.min or high > limits.max:
        wrong = low if low < limits.min else high
        raise FormatError(f"{wrong} is out of the range of {dtype.name}")
    return array.astype(dtype)


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise FormatError(f"a str is needed, not {_named(value)}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"it has lone surrogates, which are no text: {error}") from error


def _json(value: Any) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"it cannot be written as JSON: {error}") from error
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        # Half of a surrogate pair is no UTF-8, but JSON can escape it.
        if _SPLIT_PAIR.search(text):
            raise FormatError(
                "it has both halves of a surrogate pair as two characters, which JSON takes for "
                f"one: {error}"
            ) from error
    return json.dumps(value, separators=(",", ":")).encode()


def _buffer(value: Any) -> bytes | memoryview:
    if type(value) is bytes:
        return value
    hint = ": encode it first, for example text.encode()" if isinstance(value, str) else ""
    try:
        view = memoryview(value)
        if "O" in view.format:
            raise TypeError("it holds Python objects")
        return view
    except (TypeError, ValueError, BufferError) as error:
        raise FormatError(f"bytes are needed, not {_named(value)} ({error}){hint}") from error


def _named(value: Any) -> str:
    return f"a {type(value).__name__}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
