"""Items as bytes, exactly and without pickle.

Responsible for: `encode` and `decode`, for what a cache on disk keeps.

An item is a JSON text of its structure, which names the buffers behind it: ``null``, true, false,
numbers and strings stand for themselves, an object for a dict whose keys are strings, and a list
whose first element is a letter for everything else: (l)ist, (t)uple, (d)ict of any keys, (b)ytes,
(a)rray, (s)calar of numpy's, (c)omplex number. Buffers begin at multiples of 16 bytes.

Rules:
- what comes back is equal to what went in, and of the same types: a tuple stays a tuple, a float32
  a float32; what cannot be kept so is refused, with its place in the item;
- arrays come back writable, in C order;
- whatever bytes are decoded, no code of anyone's is called.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import numpy as np

from splitpipe.errors import CorruptRecord, FormatError

__all__ = ["decode", "encode"]

_HEAD: Final = struct.Struct("<I")
_ALIGNED: Final = 16
_THEMSELVES: Final = frozenset({type(None), bool, int, float})


def encode(item: Any) -> bytes:
    """Return the bytes of an item.

    Raises:
        FormatError: something in it has a type that has no bytes here.

    Example:
        >>> decode(encode({"x": (1, np.arange(2)), "y": b"z"}))
        {'x': (1, array([0, 1])), 'y': b'z'}
    """
    buffers: list[Any] = []
    structure = _structure(item, buffers, "")
    text = json.dumps(structure, ensure_ascii=False, separators=(",", ":"))
    head = text.encode("utf-8", "surrogatepass")
    parts: list[bytes | memoryview] = [_HEAD.pack(len(head)), head]
    size = _HEAD.size + len(head)
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        gap = -size % _ALIGNED
        parts += [bytes(gap), view]
        size += gap + view.nbytes
    return b"".join(parts)


def decode(data: bytes | bytearray) -> Any:
    """Return the item of bytes; its arrays are writable where `data` is a bytearray.

    Raises:
        CorruptRecord: they are those of no item.
    """
    try:
        (size,) = _HEAD.unpack_from(data)
        text = str(memoryview(data)[_HEAD.size : _HEAD.size + size], "utf-8", "surrogatepass")
        reader = _Reader(data, _HEAD.size + size)
        item = reader.value(json.loads(text))
    except (struct.error, ValueError, TypeError, IndexError, KeyError, RecursionError) as error:
        raise CorruptRecord(f"{len(data)} bytes are no item: {error}") from error
    if reader.position != len(data):
        raise CorruptRecord(f"{len(data) - reader.position} bytes too many behind an item")
    return item


def _structure(value: Any, buffers: list[Any], way: str) -> Any:
    kind = type(value)
    if kind in _THEMSELVES or kind is str:
        return value
    if kind is dict:
        return _dict(value, buffers, way)
    if kind is list or kind is tuple:
        inner = [_structure(v, buffers, f"{way}[{i}]") for i, v in enumerate(value)]
        return ["l" if kind is list else "t", *inner]
    if kind is bytes:
        buffers.append(value)
        return ["b", len(value)]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is np.ndarray or isinstance(value, np.generic):
        array = np.asarray(value)
        if not array.dtype.hasobject and array.dtype.names is None:
            contiguous = np.ascontiguousarray(array).reshape(-1)
            buffers.append(contiguous.view(np.uint8) if contiguous.size else b"")
            if kind is np.ndarray:
                return ["a", array.dtype.str, *array.shape]
            return ["s", array.dtype.str]
    what = f"{kind.__name__} of {value.dtype}" if hasattr(value, "dtype") else kind.__name__
    where = f" at {way}" if way else ""
    raise FormatError(
        f"a {what}{where} cannot be kept on disk without pickle; turn it into dicts, lists, "
        "numbers, strings, bytes or arrays before"
    )


def _dict(value: dict[Any, Any], buffers: list[Any], way: str) -> Any:
    if all(type(key) is str for key in value):
        return {key: _structure(v, buffers, f"{way}[{key!r}]") for key, v in value.items()}
    made = ["d"]
    for key, one in value.items():
        made.append(_structure(key, buffers, f"{way} key"))
        made.append(_structure(one, buffers, f"{way}[{key!r}]"))
    return made


class _Reader:
    """Puts a structure together with the buffers behind it.

    Args:
        data: of the whole item.
        position: where the structure ends.
    """

    def __init__(self, data: bytes | bytearray, position: int) -> None:
        self._data = data
        self.position = position

    def value(self, structure: Any) -> Any:
        """Return what a structure stands for."""
        if isinstance(structure, dict):
            return {key: self.value(one) for key, one in structure.items()}
        if not isinstance(structure, list):
            return structure
        letter, *rest = structure
        if letter == "l":
            return [self.value(one) for one in rest]
        if letter == "t":
            return tuple(self.value(one) for one in rest)
        if letter == "d":
            values = [self.value(one) for one in rest]
            return dict(zip(values[::2], values[1::2], strict=True))
        if letter == "b":
            return bytes(self._take(rest[0]))
        if letter == "c":
            return complex(*rest)
        if letter in ("a", "s"):
            return self._array(np.dtype(rest[0]), rest[1:], scalar=letter == "s")
        raise ValueError(f"{letter!r} stands for nothing")

    def _array(self, dtype: np.dtype[Any], shape: list[int], *, scalar: bool) -> Any:
        if dtype.hasobject or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"no array is of {dtype} and {shape}")
        count = 1
        for n in shape:
            count *= n
        array = np.frombuffer(self._take(count * dtype.itemsize), np.uint8).view(dtype)
        return array[0] if scalar else array.reshape(shape)

    def _take(self, size: int) -> memoryview:
        if type(size) is not int or size < 0:
            raise ValueError(f"no buffer has a size of {size!r}")
        start = self.position + -self.position % _ALIGNED
        if start + size > len(self._data):
            raise ValueError(f"a buffer of {size} bytes reaches beyond the end")
        self.position = start + size
        return memoryview(self._data)[start : self.position]
