"""What an array is, in a few bytes.

Responsible for: `describe` and `Described`: the type and shape of an array as bytes and back, and
`from_bytes`, an array over the bytes that a description belongs to.

Rules:
- every type of numpy without references in it has a description: numbers in either byte order,
  times with their unit, text, bytes, and structures of these with names, offsets and padding;
- a type that would come back as another one (an extension's own number types) is refused;
- a description is read by this module's own words, never by anything that evaluates text;
- both ways are remembered for the types and shapes that were seen last: a stream has few.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import WireError
from splitpipe.wire.limits import Buffer

__all__ = ["Described", "describe", "described", "from_bytes"]

DType: TypeAlias = np.dtype[Any]

_REMEMBERED = 4096
_LONGEST = 60_000
"""Bytes of a description."""
_DEEPEST = 16
_MOST_AXES = 64
_SIMPLE = re.compile(r"[<>|][biufcSUVmM][0-9]{1,10}(?:\[[0-9]{0,9}[a-zA-Z]{1,2}\])?")
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()

_descriptions: dict[tuple[DType, tuple[int, ...]], bytes] = {}
_described: dict[bytes, Described] = {}


@dataclass(frozen=True, slots=True)
class Described:
    """What a description says: the array's type, shape, and bytes."""

    dtype: DType
    shape: tuple[int, ...]
    nbytes: int


def describe(dtype: DType, shape: tuple[int, ...]) -> bytes:
    """Return the description of an array of this type and shape.

    Raises:
        WireError: the type has references in it, or would come back as another one.

    Example:
        >>> words = describe(np.dtype("float32"), (2, 3))
        >>> described(words)
        Described(dtype=dtype('float32'), shape=(2, 3), nbytes=24)
    """
    found = _descriptions.get((dtype, shape))
    # Types that are equal may differ in what they say besides: names of units, padding.
    if found is not None:
        return found
    words = _ENCODER.encode([_tell(dtype, _DEEPEST), *shape])
    if len(words) > _LONGEST:
        raise WireError(f"a type of {len(words)} bytes of description: {_LONGEST} is the limit")
    if described(words).dtype != dtype:
        raise WireError(f"arrays of {dtype} do not come back as what they are; convert them first")
    if len(_descriptions) >= _REMEMBERED:
        _descriptions.clear()
    _descriptions[dtype, shape] = words
    return words


def described(words: bytes) -> Described:
    """Return what a description says.

    Raises:
        WireError: these bytes are no description.
    """
    found = _described.get(words)
    if found is not None:
        return found
    try:
        told = _DECODER.decode(words)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a description of an array: {error}") from None
    if type(told) is not list or not 1 <= len(told) <= 1 + _MOST_AXES:
        raise WireError("not a description of an array")
    dtype = _heard(told[0], _DEEPEST)
    shape = tuple(told[1:])
    if any(type(axis) is not int or not 0 <= axis < 1 << 62 for axis in shape):
        raise WireError(f"{str(shape)[:100]} is not the shape of an array")
    made = Described(dtype, shape, prod(shape) * dtype.itemsize)
    if len(_described) >= _REMEMBERED:
        _described.clear()
    _described[words] = made
    return made


def from_bytes(told: Described, data: Buffer) -> NDArray[Any]:
    """Return the array over `data`, which cannot be written to.

    Raises:
        WireError: there are not as many bytes as the description says.
    """
    view = memoryview(data)
    if view.nbytes != told.nbytes:
        raise WireError(
            f"{view.nbytes} bytes for an array of {told.dtype} and shape "
            f"{str(told.shape)[:100]}, which takes {told.nbytes}"
        )
    try:
        return np.ndarray(told.shape, told.dtype, buffer=view.toreadonly() if told.nbytes else b"")
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise WireError(f"an array of shape {str(told.shape)[:100]}: {error}") from None


def _tell(dtype: DType, depth: int) -> Any:
    """Return what `described` makes this type of again: a text, or [itemsize, fields]."""
    if dtype.hasobject or dtype.kind not in "biufcSUVmM":
        raise WireError(f"arrays of {dtype} hold references, and cannot travel; convert them first")
    if dtype.names is None:
        return dtype.str
    if depth == 0:
        raise WireError(f"a structured type of more than {_DEEPEST} levels cannot travel")
    fields: list[Any] = []
    assert dtype.fields is not None
    for name in dtype.names:
        inner, offset, *title = dtype.fields[name]
        if title and type(title[0]) is not str:
            raise WireError(f"the title of field {name!r} of a structured type is no text")
        fields.append([name, _tell(inner.base, depth - 1), offset, list(inner.shape), *title])
    return [dtype.itemsize, dtype.isalignedstruct, fields]


def _heard(told: Any, depth: int) -> DType:
    """Return the type that `_tell` told."""
    if type(told) is str:
        if not _SIMPLE.fullmatch(told):
            raise WireError(f"{told[:50]!r} is not a type of arrays")
        try:
            return np.dtype(told)
        except (TypeError, ValueError, OverflowError) as error:
            raise WireError(f"{told[:50]!r} is not a type of arrays here: {error}") from None
    if depth == 0:
        raise WireError(f"a structured type of more than {_DEEPEST} levels")
    try:
        itemsize, aligned, fields = told
        if type(itemsize) is not int or type(aligned) is not bool or type(fields) is not list:
            raise TypeError("its parts are of other types")
        return _structure(itemsize, aligned, [tuple(field) for field in fields], depth)
    except WireError:
        raise
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise WireError(f"not a structured type: {str(error)[:200]}") from None


def _structure(itemsize: int, aligned: bool, fields: list[tuple[Any, ...]], depth: int) -> DType:
    names, formats, offsets, titles = [], [], [], []
    for name, inner, offset, shape, *title in fields:
        kinds = {type(axis) for axis in shape} | {type(offset)} if type(shape) is list else {str}
        if kinds != {int} or {type(text) for text in (name, *title)} != {str} or len(title) > 1:
            raise TypeError("a field's parts are of other types")
        base = _heard(inner, depth - 1)
        if len(shape) > _MOST_AXES or prod(shape) * base.itemsize > itemsize:
            raise ValueError("a field is larger than what it is a part of")
        names.append(name)
        formats.append(np.dtype((base, tuple(shape))) if shape else base)
        offsets.append(offset)
        titles.append(title[0] if title else None)
    spec: dict[str, Any] = {
        "names": names,
        "formats": formats,
        "offsets": offsets,
        "itemsize": itemsize,
    }
    if any(title is not None for title in titles):
        spec["titles"] = titles
    make: Any = np.dtype  # the overloads of numpy know no dict that is made as this one is
    made: DType = make(spec, align=aligned)
    return made
