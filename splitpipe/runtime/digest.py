"""What an item is, in sixteen bytes.

Responsible for: `digest`, which is equal for two items exactly if a training loop could not tell
them apart: same types, same values, arrays of the same dtype, shape and bytes.

Rules:
- it depends on nothing but the item: not on addresses, on the process, on the order of a set, on
  how an array lies in memory;
- the order of a dict counts, since whoever iterates over it sees it;
- an object is its class, by name, and what it would be pickled as; nothing is called but
  ``__reduce_ex__``, which pickling would call as well;
- what cannot be told apart is refused, never taken for equal.

Large buffers go in by length and CRC32C, at memory speed: a digest finds accidents, not forgeries.
For code and graphs, rather than items, see `splitpipe.pipeline.stages.fingerprint`.
"""

from __future__ import annotations

import copyreg
import hashlib
import struct
import sys
import types
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import numpy as np

from splitpipe.errors import NotPicklable
from splitpipe.storage.native.kernel import crc32c

__all__ = ["digest"]

LARGE = 4096
"""Bytes from which on a buffer is known by its checksum."""


def digest(item: Any) -> bytes:
    """Return 16 bytes that stand for `item`.

    Raises:
        NotPicklable: something in it has no content that could be looked at.

    Example:
        >>> import numpy as np
        >>> a, b = np.arange(6.0).reshape(2, 3), np.arange(6.0)
        >>> digest({"x": a, "n": {1, 2}}) == digest({"x": a.copy(), "n": {2, 1}})
        True
        >>> digest(a) == digest(b), digest(1) == digest(True), digest(0.0) == digest(-0.0)
        (False, False, False)
    """
    made = _Digest()
    made.add(item)
    return made.hash.digest()


class _Digest:
    """A hash in the making."""

    __slots__ = ("_kept", "_under_way", "hash")

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)
        self._under_way: dict[int, int] = {}
        self._kept: list[Any] = []  # what `__reduce_ex__` made, so that no address is used twice

    def add(self, value: Any) -> None:
        treat = _PLAIN.get(type(value))
        if treat is not None:
            treat(self, value)
            return
        depth = self._under_way.get(id(value))
        if depth is not None:  # it contains itself
            self.say("again", str(len(self._under_way) - depth))
            return
        self._under_way[id(value)] = len(self._under_way)
        try:
            self._nested(value)
        finally:
            del self._under_way[id(value)]

    def say(self, *words: str) -> None:
        for word in words:
            data = word.encode("utf-8", "surrogatepass")
            self.hash.update(struct.pack("<Q", len(data)) + data)

    def buffer(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        self.hash.update(struct.pack("<Q", view.nbytes))
        if view.nbytes < LARGE:
            self.hash.update(view)
            return
        self.hash.update(struct.pack("<I", crc32c(view)))

    def _nested(self, value: Any) -> None:
        treat = _EXACT.get(type(value))
        if treat is not None:
            treat(self, value)
        elif isinstance(value, np.ndarray):
            _array(self, value)
        elif isinstance(value, np.generic):
            self.say("scalar")
            _array(self, np.asarray(value))
        elif isinstance(value, Enum):
            self.say("enum", _name(type(value)), value.name)
        elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
            self.say("named", _name(value))
        elif _is_tensor(value):
            _tensor(self, value)
        else:
            self._object(value)

    def _object(self, value: Any) -> None:
        kind = type(value)
        try:
            reduce = copyreg.dispatch_table.get(kind)
            reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:
            raise NotPicklable(
                f"a {_name(kind)} cannot be compared with another one, nor travel to another "
                f"process: {error}; let the stage give its content instead"
            ) from error
        self._kept.append(reduced)
        self.say("object", _name(kind))
        if isinstance(reduced, str):
            self.say(reduced)
            return
        make, arguments, *more = reduced
        state, items, pairs = (*more, None, None, None)[:3]
        self.say(_name(make))
        # Its class is among the arguments of what makes it, and a class is its name.
        for part in (arguments, state, list(items or ()), [list(pair) for pair in pairs or ()]):
            self._kept.append(part)
            self.add(part)


def _plain(digest: _Digest, value: Any) -> None:
    digest.say(type(value).__name__, repr(value))


def _float(digest: _Digest, value: float) -> None:
    digest.say("float", "nan" if value != value else value.hex())


def _text(digest: _Digest, value: str) -> None:
    digest.say("str", value)


def _bytes(digest: _Digest, value: Any) -> None:
    digest.say(type(value).__name__)
    digest.buffer(value)


def _sequence(digest: _Digest, value: Iterable[Any]) -> None:
    items = list(value)
    digest.say(type(value).__name__, str(len(items)))
    for item in items:
        digest.add(item)


def _mapping(digest: _Digest, value: Any) -> None:
    digest.say("dict", str(len(value)))
    for key, item in value.items():
        digest.add(key)
        digest.add(item)


def _set(digest: _Digest, value: Any) -> None:
    outer = digest.hash
    parts = []
    for item in value:
        digest.hash = hashlib.blake2b(digest_size=16)
        digest.add(item)
        parts.append(digest.hash.digest())
    digest.hash = outer
    digest.say(type(value).__name__, str(len(parts)))
    digest.hash.update(b"".join(sorted(parts)))


def _array(digest: _Digest, value: Any) -> None:
    if type(value) is not np.ndarray:
        digest.say(_name(type(value)))
    if isinstance(value, np.ma.MaskedArray):
        digest.add(np.ma.getmaskarray(value))
        value = value.filled()
    if value.dtype.hasobject:
        digest.say("objects", str(value.dtype), str(value.shape))
        digest.add(np.asarray(value).ravel().tolist())
        return
    digest.say("array", repr(value.dtype), str(value.shape))
    plain = np.ascontiguousarray(value)
    digest.buffer(plain.reshape(-1).view(np.uint8) if plain.nbytes else b"")


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _tensor(digest: _Digest, value: Any) -> None:
    digest.say("tensor", str(value.dtype), str(tuple(value.shape)))
    plain = value.detach().cpu().contiguous().reshape(-1)
    torch: Any = sys.modules["torch"]
    digest.buffer(plain.view(torch.uint8).numpy() if plain.numel() else b"")


def _name(value: Any) -> str:
    module = getattr(value, "__module__", None) or ""
    return f"{module}.{getattr(value, '__qualname__', type(value).__qualname__)}"


_PLAIN: dict[type, Callable[[_Digest, Any], None]] = {
    type(None): _plain,
    bool: _plain,
    int: _plain,
    float: _float,
    complex: _plain,
    str: _text,
    bytes: _bytes,
    bytearray: _bytes,
}

_EXACT: dict[type, Callable[[_Digest, Any], None]] = {
    memoryview: _bytes,
    tuple: _sequence,
    list: _sequence,
    dict: _mapping,
    set: _set,
    frozenset: _set,
    np.ndarray: _array,
}
"""Containers; those that are derived from them have more to say, and are objects."""
