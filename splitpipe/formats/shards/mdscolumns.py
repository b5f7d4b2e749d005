"""What the encodings of MDS columns hold.

Responsible for: `decoder_of`: an encoding's name -> the field it is, its fixed size, and its value.
The bytes are as ``streaming/base/format/mds/encodings.py`` of mosaicml-streaming 0.13 writes them.

Rules:
- a value has exactly the bytes it needs: too few or too many are refused;
- images stay encoded; encodings of several or of raw images are given as their bytes;
- numbers as text keep their exactness: ``str_int`` any integer, ``str_decimal`` its digits.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.schema import Field

__all__ = ["Decoder", "decoder_of"]

# The codes of dtypes in an array that brings its own.
_DTYPES = {
    8: "uint8",
    9: "int8",
    16: "uint16",
    17: "int16",
    18: "float16",
    32: "uint32",
    33: "int32",
    34: "float32",
    64: "uint64",
    65: "int64",
    66: "float64",
}
_SCALARS = frozenset(_DTYPES.values())
_SHAPE_DTYPES = ("<u1", "<u2", "<u4", "<u8")
_AS_BYTES = ("pil", "jpeg_array", "jpegarray", "list[pil]", "list[jpeg]", "list[png]")


@dataclass(frozen=True, slots=True)
class Decoder:
    """How a column is read.

    Attributes:
        field: what it is.
        size: bytes of every value; ``None`` if they differ.
        decode: a value from its bytes; a ValueError where they are not one.
        any_dtype: whether each array brings its own dtype; the field's is then only a guess.
    """

    field: Field
    size: int | None
    decode: Callable[[bytes], Any]
    any_dtype: bool = False


def decoder_of(encoding: str, *, allow_pickle: bool, where: str) -> Decoder:
    """How to read a column of an encoding.

    Raises:
        FormatError: the encoding is not known.

    Example:
        >>> decoder = decoder_of("ndarray:int16:2,3", allow_pickle=False, where="here")
        >>> decoder.field.shape, decoder.size, decoder.decode(bytes(12)).shape
        ((2, 3), 12, (2, 3))
    """
    name, _, rest = encoding.partition(":")
    if name == "ndarray":
        return _ndarray(rest, where)
    if encoding in _SCALARS or encoding == "int":
        dtype = np.dtype("int64" if encoding == "int" else encoding).newbyteorder("<")
        return Decoder(Field("scalar", dtype=dtype.name), dtype.itemsize, _scalar(dtype))
    if encoding == "pkl":
        return Decoder(Field("pickle"), None, pickle.loads if allow_pickle else _refuse(where))
    if encoding in _AS_BYTES:
        return Decoder(Field("bytes"), None, bytes)
    if encoding not in _PLAIN:
        raise FormatError(f"{where} is of the unknown encoding {encoding!r:.100}")
    field, decode = _PLAIN[encoding]
    return Decoder(field, None, decode)


def _text(data: bytes) -> str:
    return data.decode("utf-8")


_PLAIN: dict[str, tuple[Field, Callable[[bytes], Any]]] = {
    "bytes": (Field("bytes"), bytes),
    "str": (Field("str"), _text),
    "json": (Field("json"), json.loads),
    "jpeg": (Field("image"), bytes),
    "png": (Field("image"), bytes),
    "str_int": (Field("json"), lambda data: int(_text(data))),
    "str_float": (Field("scalar", dtype="float64"), lambda data: np.float64(_text(data))),
    "str_decimal": (Field("str"), _text),
}


def _scalar(dtype: np.dtype[Any]) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        return np.frombuffer(data, dtype=dtype)[0]

    return decode


def _refuse(where: str) -> Callable[[bytes], Any]:
    def decode(_data: bytes) -> Any:
        raise FormatError(
            f"{where} holds pickles, which run code of whoever wrote them when opened: read other "
            "columns, or say allow_pickle=True if you trust it"
        )

    return decode


def _ndarray(text: str, where: str) -> Decoder:
    """``ndarray``, ``ndarray:dtype`` or ``ndarray:dtype:axis,axis``."""
    parts = text.split(":") if text else []
    name = parts[0] if parts else None
    shape: tuple[int, ...] | None = None
    try:
        if len(parts) == 2:
            shape = tuple(int(axis) for axis in parts[1].split(","))
        good = len(parts) <= 2 and (name is None or name in _DTYPES.values())
    except ValueError:
        good = False
    if not good or (shape is not None and not all(0 < axis < 1 << 32 for axis in shape)):
        raise FormatError(f"{where} is of the unknown encoding 'ndarray:{text:.100}'")
    size = None
    if name is not None and shape is not None:
        size = math.prod(shape) * np.dtype(name).itemsize

    def decode(data: bytes) -> npt.NDArray[Any]:
        at = 0
        dtype_name, axes = name, shape
        if dtype_name is None:
            dtype_name, at = _DTYPES.get(data[0], ""), 1
            if not dtype_name:
                raise ValueError(f"unknown dtype {data[0]}")
        if axes is None:
            count, width = data[at] >> 2, data[at] & 3
            stop = at + 1 + (count << width)
            numbers = np.frombuffer(data[at + 1 : stop], dtype=_SHAPE_DTYPES[width])
            axes, at = tuple(map(int, numbers)), stop
            if len(axes) != count:
                raise ValueError("the shape is cut")
        dtype = np.dtype(dtype_name).newbyteorder("<")
        if math.prod(axes) * dtype.itemsize != len(data) - at:
            raise ValueError(f"{len(data) - at} bytes for an array of shape {axes}")
        return np.frombuffer(data, dtype=dtype, offset=at).reshape(axes).copy()

    return Decoder(Field("ndarray", dtype=name or "uint8", shape=shape), size, decode, name is None)
