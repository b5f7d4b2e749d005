"""Values as frames, and frames as values.

Responsible for: `encode` and `decode`.

    frame 0     one byte that says which form, then a value of MessagePack
    frame 1..   the bytes of large arrays, and of large byte strings, in the order they are met

Rules:
- None, bool, int of any size, float, str, bytes, list, tuple and dict (of keys of any of these but
  list and dict), numpy's scalars, and arrays of any type without references: nothing else, no
  subclasses. What comes back is equal, of the same types;
- bytes of an array of 4 KiB and more are a frame of their own: neither side copies them, and what
  comes back is a view of the frame, which cannot be written to. Smaller ones lie inside;
- what msgspec takes as it is goes to it as it is: whether a list has only such values is asked of
  all its items at once;
- where a value cannot travel, the error names the place inside of it. The place is looked for
  when the error is known, so that the usual way carries none.

The second form has marks: a list that begins with one is a tuple, or a dict whose keys MessagePack
has no words for. Only values that have such in them take this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from splitpipe.errors import WireError
from splitpipe.wire.arrays import describe, described, from_bytes
from splitpipe.wire.limits import DEFAULT, Buffer, Limits
from splitpipe.wire.scanning import check_head

__all__ = ["SMALL_NBYTES", "decode", "encode"]

SMALL_NBYTES = 4096
"""From how many bytes on an array is a frame of its own."""
_SMALL_BYTES_NBYTES = 65536
"""The same of byte strings, which are copied on arrival anyway."""

_FORM, _MARKED_FORM = b"\x01", b"\x02"
_ARRAY, _FRAME_ARRAY, _SCALAR, _TEXT, _BYTES, _INT, _FRAME_BYTES, _TUPLE, _MAP = range(1, 10)

_NoneType = type(None)
_PLAIN = frozenset({_NoneType, bool, int, float, str})
_PLAIN_OR_BYTES = _PLAIN | {bytes}
_INT_RANGE = range(-(1 << 63), 1 << 64)
_ENCODER = msgspec.msgpack.Encoder()
_Ext = msgspec.msgpack.Ext


def encode(value: Any, *, limits: Limits = DEFAULT) -> list[Buffer]:
    """Return `value` as frames. Those of arrays are the memory of the arrays.

    Raises:
        WireError: something in it cannot travel, or it is beyond `limits`; it names the place.

    Example:
        >>> batch = {"id": np.arange(3), "name": ["a", "b", "c"], "image": np.zeros((2, 64, 64))}
        >>> frames = encode(batch)
        >>> [memoryview(frame).nbytes for frame in frames][1:]
        [65536]
        >>> decode(frames)["name"]
        ['a', 'b', 'c']
        >>> encode({"image": [1, {2}]})
        Traceback (most recent call last):
        splitpipe.errors.WireError: value['image'][1] is a set, which cannot travel: ...
    """
    try:
        work = _Encoding(limits)
        return work.frames(value)
    except OverflowError:  # an integer that MessagePack has no words for: look at every one
        return _BigEncoding(limits).frames(value)


class _Encoding:
    """One value on its way out."""

    plain = _PLAIN
    plain_or_bytes = _PLAIN_OR_BYTES

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.form = _FORM
        self.others: list[Buffer] = []

    def frames(self, value: Any) -> list[Buffer]:
        try:
            head = bytearray(self.form)
            fitted = self.fit(value, self.limits.depth)
            _ENCODER.encode_into(fitted, head, 1)
        except _Unfit as error:
            raise WireError(_place(value, error.value) + str(error)) from None
        except UnicodeEncodeError as error:
            raise WireError(
                f"{_place(value, error.object)} is no valid text: {error.reason}"
            ) from None
        except RecursionError:
            raise WireError("a value that lies too deep, or inside of itself") from None
        if self.form is not _FORM:
            head[0:1] = self.form
        made: list[Buffer] = [head, *self.others]
        self._check(made)
        return made

    def _check(self, made: list[Buffer]) -> None:
        limits = self.limits
        if len(made) == 1 and len(made[0]) <= limits.nbytes:
            return
        nbytes = sum(memoryview(frame).nbytes for frame in made)
        if nbytes > limits.nbytes or len(made) > limits.frames:
            raise WireError(
                f"a value of {nbytes} bytes in {len(made)} frames: the limits are "
                f"{limits.nbytes} bytes and {limits.frames} frames"
            )

    def fit(self, value: Any, depth: int) -> Any:
        """Return what msgspec is to be given for `value`."""
        kind = type(value)
        if kind in self.plain:
            return value
        if kind is np.ndarray or kind is np.memmap:
            return self.array(value)
        if kind is dict:
            return self.dict(value, depth)
        if kind is list:
            return self.list(value, depth)
        if kind is tuple:
            self.form = _MARKED_FORM
            return [_Ext(_TUPLE, b""), *self.list(value, depth)]
        if kind is bytes:
            return value if len(value) < _SMALL_BYTES_NBYTES else self.large(_FRAME_BYTES, value)
        if issubclass(kind, np.generic):
            return self.scalar(value)
        return self.other(value)

    def other(self, value: Any) -> Any:
        raise _Unfit(value, f" is a {type(value).__name__}, which cannot travel: {_KINDS}")

    def list(self, items: Sequence[Any], depth: int) -> Sequence[Any]:
        kinds = set(map(type, items))
        if kinds <= self.plain:
            return items
        if kinds == {bytes} and max(map(len, items)) < _SMALL_BYTES_NBYTES:
            return items
        if not depth:
            raise _Unfit(items, f" lies deeper than {self.limits.depth} containers")
        if kinds == {dict}:
            # Rows: one look at all their keys, one at all their values.
            values = chain.from_iterable(map(dict.values, items))
            keys = set(map(type, chain.from_iterable(items)))
            if keys == {str} and set(map(type, values)) <= self.plain:
                return items
        fit = self.fit
        return [fit(item, depth - 1) for item in items]

    def dict(self, items: dict[Any, Any], depth: int) -> Any:
        if not depth:
            raise _Unfit(items, f" lies deeper than {self.limits.depth} containers")
        fit = self.fit
        if set(map(type, items)) <= self.plain_or_bytes:
            return {key: fit(item, depth - 1) for key, item in items.items()}
        self.form = _MARKED_FORM
        pairs = [fit(item, depth - 1) for item in chain.from_iterable(items.items())]
        return [_Ext(_MAP, b""), *pairs]

    def array(self, value: Any) -> msgspec.msgpack.Ext:
        words = self.described(value)
        if value.nbytes < SMALL_NBYTES:
            size = len(words).to_bytes(2, "little")
            return _Ext(_ARRAY, size + words + value.tobytes())
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return self.large(_FRAME_ARRAY, flat.data, words)

    def described(self, value: Any) -> bytes:
        try:
            return describe(value.dtype, value.shape)
        except WireError as error:
            raise _Unfit(value, f": {error}") from None

    def large(self, code: int, data: Buffer, words: bytes = b"") -> msgspec.msgpack.Ext:
        self.others.append(data)
        return _Ext(code, len(self.others).to_bytes(4, "little") + words)

    def scalar(self, value: Any) -> msgspec.msgpack.Ext:
        if type(value) is np.str_:
            return _Ext(_TEXT, value.encode())
        if type(value) is np.bytes_:
            return _Ext(_BYTES, bytes(value))
        words = self.described(value)
        return _Ext(_SCALAR, len(words).to_bytes(2, "little") + words + value.tobytes())


class _BigEncoding(_Encoding):
    """One that looks at every integer."""

    plain = _PLAIN - {int}
    plain_or_bytes = _PLAIN_OR_BYTES - {int}

    def other(self, value: Any) -> Any:
        if type(value) is not int:
            return super().other(value)
        if value in _INT_RANGE:
            return value
        return _Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


_KINDS = (
    "make it of None, bool, int, float, str, bytes, list, tuple, dict, and numpy's arrays and "
    "scalars"
)


class _Unfit(Exception):
    """Something that cannot travel."""

    def __init__(self, value: Any, why: str) -> None:
        super().__init__(why)
        self.value = value


def _place(whole: Any, wanted: Any) -> str:
    """Return how one comes from `whole` to `wanted`, which is in it: ``value['image'][3]``."""
    found: list[tuple[Any, str]] = [(whole, "value")]
    seen: set[int] = set()
    while found:
        value, name = found.pop()
        if value is wanted:
            return name
        if id(value) in seen or type(value) not in (list, tuple, dict):
            continue
        seen.add(id(value))
        if type(value) is dict:
            found += [(item, f"{name}[{key!r:.60}]") for key, item in value.items()]
            found += [(key, f"a key of {name}") for key in value]
        else:
            found += [(item, f"{name}[{index}]") for index, item in enumerate(value)]
    return "value"


def decode(frames: Sequence[Buffer], *, limits: Limits = DEFAULT) -> Any:
    r"""Return the value of `frames`. Its arrays cannot be written to; large ones are views of them.

    Raises:
        WireError: these frames are not a value, or beyond `limits`.

    Example:
        >>> decode(encode((1, {"x": [2**70, None]}, np.float32(0.5))))
        (1, {'x': [1180591620717411303424, None]}, np.float32(0.5))
        >>> decode([b"\x01\xdd\xff\xff\xff\xff"])  # a list, it says, of four thousand million
        Traceback (most recent call last):
        splitpipe.errors.WireError: not a value of the wire format: Input data was truncated
    """
    count = len(frames)
    if not 0 < count <= limits.frames:
        raise WireError(f"a value of {count} frames: it takes 1 to {limits.frames}")
    head = bytes(frames[0])
    nbytes = len(head) if count == 1 else sum(memoryview(frame).nbytes for frame in frames)
    if nbytes > limits.nbytes:
        raise WireError(f"a value of {nbytes} bytes: {limits.nbytes} is the limit")
    form, head = head[:1], head[1:]
    check_head(head, limits)
    if form == _FORM:
        return _ALONE.value(head) if count == 1 else _Decoding(frames).value(head)
    if form == _MARKED_FORM:
        return _unmarked(_Decoding(frames, marks=True).value(head))
    raise WireError(f"a value of form {form!r}, which is none, or of a newer version")


class _Mark:
    """What the first item of a marked list becomes."""


_TUPLE_MARK, _MAP_MARK = _Mark(), _Mark()
_NESTED = frozenset({list, dict, tuple, _Mark})


class _Decoding:
    """One value on its way in."""

    def __init__(self, frames: Sequence[Buffer], *, marks: bool = False) -> None:
        self.frames = frames
        self.marks = marks
        self.decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=self.made)

    def value(self, head: bytes) -> Any:
        try:
            return self.decoder.decode(head)
        except WireError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as error:
            raise WireError(f"not a value of the wire format: {error}") from None

    def made(self, code: int, data: memoryview) -> Any:
        """Return what an extension stands for."""
        if code == _ARRAY:
            told, start = self.described(data)
            return from_bytes(told, bytes(data[start:]))
        if code == _FRAME_ARRAY:
            return from_bytes(described(bytes(data[4:])), self.frame(data))
        if code == _SCALAR:
            told, start = self.described(data)
            if told.shape:
                raise WireError("a scalar with a shape")
            return from_bytes(told, bytes(data[start:]))[()]
        if code == _TEXT:
            return np.str_(bytes(data).decode())
        if code == _BYTES:
            return np.bytes_(bytes(data))
        if code == _INT:
            return int.from_bytes(data, "little", signed=True)
        if code == _FRAME_BYTES:
            return bytes(self.frame(data))
        if code in (_TUPLE, _MAP) and self.marks and not data:
            return _TUPLE_MARK if code == _TUPLE else _MAP_MARK
        raise WireError(f"an extension of code {code}, which means nothing here")

    def described(self, data: memoryview) -> Any:
        start = 2 + int.from_bytes(data[:2], "little")
        return described(bytes(data[2:start])), start

    def frame(self, data: memoryview) -> Buffer:
        number = int.from_bytes(data[:4], "little")
        if not 0 < number < len(self.frames):
            raise WireError(f"frame {number} of {len(self.frames)}")
        return self.frames[number]


_ALONE = _Decoding([b""])
"""What makes values of one frame, as most are."""


def _unmarked(value: Any) -> Any:
    """Return `value` with tuples and dicts in place of the lists that are marked as such."""
    kind = type(value)
    if kind is _Mark:
        raise WireError("a mark outside of a list")
    if kind is dict:
        if not _NESTED.isdisjoint(map(type, value)):
            raise WireError("a key that is no plain value")
        if _NESTED.isdisjoint(map(type, value.values())):
            return value
        return {key: _unmarked(item) for key, item in value.items()}
    if kind is not list or _NESTED.isdisjoint(map(type, value)):
        return value
    first = value[0]
    if first is _TUPLE_MARK:
        return tuple(map(_unmarked, value[1:]))
    if first is _MAP_MARK:
        return _mapped([_unmarked(item) for item in value[1:]])
    return [_unmarked(item) for item in value]


def _mapped(pairs: list[Any]) -> dict[Any, Any]:
    if len(pairs) % 2:
        raise WireError("a dict whose last key has no value")
    try:
        return dict(zip(pairs[::2], pairs[1::2], strict=True))
    except TypeError as error:
        raise WireError(f"a key of a dict: {error}") from None
