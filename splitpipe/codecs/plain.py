"""Numbers, arrays, text and objects as bytes.

Responsible for: the codec of every field before compression. Arrays are stored in C order and
little-endian: a fixed shape as the elements alone; after the elements, each free axis' length as
a u64; after a fully free shape, all lengths and their number as one byte. So the elements begin
where the bytes do.
"""

from __future__ import annotations

import json
import math
import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.codecs.base import Codec, Reading
from splitpipe.codecs.media import decoder, encoded
from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.schema import Field, fit, fit_array

__all__ = ["plain_codec"]

_LENGTH: Final = struct.Struct("<Q")
# Struct packs these as they are stored, checks the range, and refuses what would be changed.
_FAST_SCALARS: Final = {
    "int8": "<b",
    "uint8": "<B",
    "int16": "<h",
    "uint16": "<H",
    "int32": "<i",
    "uint32": "<I",
    "int64": "<q",
    "uint64": "<Q",
    "float64": "<d",
}


def plain_codec(field: Field, reading: Reading) -> Codec:
    """The codec of a field, without compression."""
    kind = field.kind
    if kind in ("ndarray", "scalar"):
        if sys.byteorder != "little":  # pragma: no cover - no such machine here
            raise FormatError("arrays are stored little-endian: this machine cannot map them")
        return _ScalarCodec(field) if kind == "scalar" else _ArrayCodec(field)
    if kind == "pickle":
        return _PickleCodec(field, allowed=reading.allow_pickle)
    if kind in ("image", "audio", "video"):
        decode = decoder(kind) if reading.decode else None
        return _SimpleCodec(field, lambda value: encoded(kind, fit(field, value)), decode or bytes)
    decoders: dict[str, Callable[[bytes], Any]] = {"bytes": bytes, "str": _text, "json": json.loads}
    return _SimpleCodec(field, lambda value: fit(field, value), decoders[kind])


def _text(data: bytes) -> str:
    return str(data, "utf-8")


class _SimpleCodec:
    """Values whose bytes are made by one function and read by another."""

    def __init__(
        self, field: Field, encode: Callable[[Any], Any], decode: Callable[[bytes], Any]
    ) -> None:
        self._field = field
        self._encode = encode
        self._decode = decode

    def encode(self, value: Any) -> bytes:
        data = self._encode(value)
        return data if type(data) is bytes else memoryview(data).tobytes()

    def decode(self, data: bytes) -> Any:
        try:
            return self._decode(data)
        except (ValueError, RecursionError) as error:
            raise CorruptRecord(f"{len(data)} bytes are no {self._field.kind}: {error}") from error

    def decode_into(self, records: Sequence[bytes], out: npt.NDArray[Any]) -> None:
        raise FormatError(f"values of {self._field!r} make no array")


class _PickleCodec(_SimpleCodec):
    """Any object; read only by whoever says so."""

    def __init__(self, field: Field, *, allowed: bool) -> None:
        super().__init__(field, self._dumps, self._loads)
        self._allowed = allowed

    @staticmethod
    def _dumps(value: Any) -> bytes:
        try:
            return pickle.dumps(value, protocol=5)
        except Exception as error:
            raise FormatError(f"a {type(value).__name__} cannot be pickled: {error}") from error

    def _loads(self, data: bytes) -> Any:
        if not self._allowed:
            raise FormatError(
                "this column is pickled: reading it runs code that the data chooses. Say "
                "allow_pickle=True if you trust who wrote it"
            )
        try:
            return pickle.loads(data)
        except Exception as error:
            raise CorruptRecord(f"{len(data)} bytes cannot be unpickled: {error!r}") from error

    def decode(self, data: bytes) -> Any:
        return self._loads(data)


class _ArrayCodec:
    """Arrays of a fixed, a partly free or a free shape."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._dtype = field.numpy_dtype
        shape = field.shape
        self._shape = shape
        self._nbytes = field.nbytes
        self._free = [] if shape is None else [at for at, n in enumerate(shape) if n is None]

    def encode(self, value: Any) -> bytes:
        if type(value) is np.ndarray and value.dtype == self._dtype and value.shape == self._shape:
            # Exactly what is stored: most arrays.
            return value.tobytes()
        array = fit_array(self._field, value)
        data = array.tobytes()
        if self._shape is None:
            return data + struct.pack(f"<{array.ndim}QB", *array.shape, array.ndim)
        if self._free:
            return data + b"".join(_LENGTH.pack(array.shape[at]) for at in self._free)
        return data

    def decode(self, data: bytes) -> Any:
        shape, nbytes = self._shape_of(data)
        # Copied: arrays own their memory, aligned and writable.
        flat = np.frombuffer(data, self._dtype, count=nbytes // self._dtype.itemsize)
        return flat.reshape(shape).copy()

    def _shape_of(self, data: bytes) -> tuple[tuple[int, ...], int]:
        """Shape and bytes of the elements, compared with the bytes that are there."""
        size = len(data)
        if self._nbytes is not None:
            if size != self._nbytes:
                raise self._wrong(size)
            return self._field.fixed_shape, size
        try:
            if self._shape is None:
                axes = data[-1]
                tail = 8 * axes + 1
                shape = struct.unpack_from(f"<{axes}Q", data, size - tail)
            else:
                tail = 8 * len(self._free)
                lengths = iter(struct.unpack_from(f"<{len(self._free)}Q", data, size - tail))
                shape = tuple(next(lengths) if n is None else n for n in self._shape)
        except (struct.error, IndexError) as error:
            raise self._wrong(size) from error
        nbytes = math.prod(shape) * self._dtype.itemsize
        # Lengths beside a 0 are not bounded by the bytes, but by what numpy can count.
        if nbytes != size - tail or len(shape) > 32 or any(n >= 1 << 62 for n in shape):
            raise self._wrong(size)
        return shape, nbytes

    def _wrong(self, size: int) -> CorruptRecord:
        return CorruptRecord(f"{size} bytes are no {self._field!r}")

    def decode_into(self, records: Sequence[bytes], out: npt.NDArray[Any]) -> None:
        wrong = next((r for r in records if len(r) != self._nbytes), None)
        if wrong is not None:
            raise self._wrong(len(wrong))
        if out.nbytes:
            flat = np.frombuffer(b"".join(records), self._dtype)
            out[...] = flat.reshape(out.shape)


class _ScalarCodec(_ArrayCodec):
    """Single numbers: Python's own, except dates, which would lose their unit."""

    def __init__(self, field: Field) -> None:
        super().__init__(field)
        known = _FAST_SCALARS.get(field.dtype or "")
        self._struct = struct.Struct(known) if known else None
        self._types = (float, int) if field.dtype == "float64" else (int,)
        self._dates = self._dtype.kind in "mM"

    def encode(self, value: Any) -> bytes:
        if self._struct is not None and type(value) in self._types:
            try:
                return self._struct.pack(value)
            except (struct.error, OverflowError):
                pass  # `fit_array` says what is wrong
        return fit_array(self._field, value).tobytes()

    def decode(self, data: bytes) -> Any:
        if len(data) != self._nbytes:
            raise self._wrong(len(data))
        if self._struct is not None:
            return self._struct.unpack(data)[0]
        found = np.frombuffer(data, self._dtype)[0]
        return found if self._dates else found.item()
