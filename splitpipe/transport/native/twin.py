"""Trees of plain values, in Python: what the bytes mean, for this twin and for the one in C.

Responsible for: `write` and `read`, and two others that have a twin in C: `address` and `drain`.

A tree is what pickle restores without running anybody's code, and what most items and batches are:
dicts, lists and tuples of text, bytes, numbers, None, and numpy's own arrays and scalars of
numbers. A small dict with an array in it takes pickle 4.5 microseconds, and 2.7 to read it, a batch
of four arrays and some names 15 and 8.5; in C, a tree takes 0.2 and 0.3, and 0.6 and 1.3.

Rules:
- exact types only: a subclass may mean anything, and is left to pickle with all that is around it;
- a tree comes back as pickle would bring it: types, dtypes, order of keys, memory order, and one
  object where it was one, however often it is referred to. But all arrays are writable: they are
  their reader's own;
- large arrays do not travel in the stream: their *places* do;
- nothing is read beyond the end of a stream, whatever is in it.

Stream, little endian: ``T`` and a node. A node is a byte that says its kind, and

- ``N`` None, ``Y`` True, ``F`` False: nothing;
- ``1 4 8`` an int of so many bytes, signed; ``d`` a float; ``c`` a complex;
- ``a`` text of ASCII, ``u`` other text in UTF-8, ``b`` bytes: u32 length, and they;
- ``( [ {`` a tuple, a list, a dict: u32 length, and that many nodes (a dict: twice as many);
- ``A`` an array: letter of its dtype, u8 flags (1: Fortran's order, 2: elsewhere), u8 axes,
  as many u64, and its bytes unless it is elsewhere;
- ``n`` a scalar of numpy: letter of its dtype, and its bytes;
- ``r`` the object that was given this number (u32): nodes whose byte has the highest bit set are
  numbered in the order in which they begin.

A place is ``u64 segment (from 1), offset, nbytes``; places stand in the order of their arrays.

Source: the marks and the counting of references are those of marshal, leaving large buffers out is
PEP 574.
"""

from __future__ import annotations

import errno
import math
import os
import select
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.transport.base import Buffer

__all__ = ["MARK", "NAME", "PLACE", "address", "drain", "read", "write"]

NAME = "python"
MARK = b"T"
"""The first byte of a stream; a pickle of any protocol used here begins with 0x80."""
PLACE = struct.Struct("<QQQ")
_NUMBERED = 0x80
_DEPTH = 200
_MOST_NBYTES = (2**63 - 1) >> 8
_FORTRAN, _ELSEWHERE = 1, 2
_LENGTH = struct.Struct("<I")
_LETTERS = "?bBhHiIlLqQefdgFDG"
_DTYPES = {ord(letter): np.dtype(letter) for letter in _LETTERS}
_SHORT = {b"1"[0]: struct.Struct("<b"), b"4"[0]: struct.Struct("<i"), b"8"[0]: struct.Struct("<q")}
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_ATOMS = {b"N"[0]: None, b"Y"[0]: True, b"F"[0]: False}


def write(
    value: object, limit: int, spans: tuple[int, ...], /
) -> tuple[bytes, bytes, list[tuple[int, NDArray[Any]]] | None, int] | None:
    """Return the stream of a tree, the places of its arrays of `limit` bytes and more, those of
    them that have none yet with their numbers, and the bytes of all of them; None: no tree.

    An array has a place if it lies in one of `spans`, which are pairs of an address and a number of
    bytes, one of each segment; it becomes read-only, since it is its reader's now.

    This twin writes contiguous arrays alone, and leaves everything else to pickle, which is quicker
    than Python; the one in C writes any tree.

    Example:
        >>> stream, places, outside, nbytes = write(np.arange(6), 48, ())
        >>> PLACE.unpack(places), nbytes
        ((0, 0, 48), 48)
        >>> memory = np.frombuffer(outside[0][1].tobytes(), np.uint8)
        >>> read(stream, PLACE.pack(1, 0, 48), [memory])
        array([0, 1, 2, 3, 4, 5])
    """
    if type(value) is not np.ndarray or value.nbytes < limit:
        return None
    kind, flags = value.dtype, value.flags
    if kind.char not in _LETTERS or not kind.isnative or kind.metadata or not flags.forc:
        return None
    marks = _ELSEWHERE | (0 if flags.c_contiguous else _FORTRAN)
    head = MARK + b"A" + kind.char.encode() + bytes([marks, value.ndim])
    stream = head + struct.pack(f"<{value.ndim}Q", *value.shape)
    nbytes, begin = value.nbytes, address(value)
    for segment in range(0, len(spans), 2):
        offset = begin - spans[segment]
        if 0 <= offset <= spans[segment + 1] - nbytes:
            flags.writeable = False
            return stream, PLACE.pack(segment // 2 + 1, offset, nbytes), None, nbytes
    return stream, PLACE.pack(0, 0, nbytes), [(0, value)], nbytes


def address(array: NDArray[Any], /) -> int:
    """Return where in memory an array begins; numpy's own way takes a microsecond."""
    found: int = array.__array_interface__["data"][0]
    return found


def drain(descriptor: int, /) -> list[int] | None:
    """Return the numbers (u32) that have come through a socket, a message each, without waiting.
    None: nothing will come any more.

    Raises:
        OSError: the socket was closed.
    """
    if descriptor < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    found: list[int] = []
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while poll.poll(0):
        data = os.read(descriptor, _LENGTH.size)
        if not data:
            return found or None
        found += _LENGTH.unpack(data)
    return found


def read(stream: Buffer, places: Buffer, held: list[NDArray[np.uint8]], /) -> Any:
    """Return the tree of a stream; arrays that are elsewhere are views of what `held` has: a flat
    array of bytes for each segment, as writable as that.

    Raises:
        ValueError: it is no tree, or not a whole one, or its arrays do not lie in `held`.
        TypeError: it is none: something in it is no key of a dict.

    Example:
        >>> read(b"T[" + bytes([2, 0, 0, 0]) + b"Y1" + bytes([7]), b"", [])
        [True, 7]
    """
    return _Reading(stream, places, held).whole()


class _Reading:
    """One stream, up to `_at`."""

    def __init__(self, stream: Buffer, places: Buffer, held: list[NDArray[np.uint8]]) -> None:
        self._stream = memoryview(stream)
        self._at = 0
        self._places = list(PLACE.iter_unpack(bytes(places)))
        self._held = held
        self._numbered: list[Any] = []
        self._depth = 0

    def whole(self) -> Any:
        if self._take(1) != MARK:
            raise _broken("this is no tree")
        value = self._node()
        if self._at != len(self._stream) or self._places:
            raise _broken("a tree has too much")
        return value

    def _take(self, nbytes: int) -> memoryview:
        if nbytes > len(self._stream) - self._at:
            raise _broken("a tree ends in the middle")
        self._at += nbytes
        return self._stream[self._at - nbytes : self._at]

    def _unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self._take(form.size))

    def _node(self) -> Any:
        mark = self._take(1)[0]
        kind = mark & ~_NUMBERED
        number = -1
        if mark & _NUMBERED:
            number = len(self._numbered)
            self._numbered.append(_Unmade)
        if kind in b"[{(":
            return self._container(kind, number)
        value = self._leaf(kind)
        if number >= 0:
            self._numbered[number] = value
        return value

    def _leaf(self, kind: int) -> Any:
        if kind in _ATOMS:
            return _ATOMS[kind]
        if kind in _SHORT:
            return self._unpack(_SHORT[kind])[0]
        if kind in b"aub":
            data = self._take(self._unpack(_LENGTH)[0])
            return (
                bytes(data)
                if kind == b"b"[0]
                else str(data, "utf-8" if kind == b"u"[0] else "ascii")
            )
        if kind in b"dc":
            return self._unpack(_FLOAT)[0] if kind == b"d"[0] else complex(*self._unpack(_COMPLEX))
        if kind == b"A"[0]:
            return self._array()
        if kind == b"n"[0]:
            dtype = self._dtype(self._take(1)[0])
            return np.frombuffer(self._take(dtype.itemsize), dtype)[0]
        if kind == b"r"[0]:
            return self._again(self._unpack(_LENGTH)[0])
        raise _broken("a tree of unknown kinds")

    def _again(self, number: int) -> Any:
        if number >= len(self._numbered) or self._numbered[number] is _Unmade:
            raise _broken("a tree refers to what it does not have")
        return self._numbered[number]

    def _container(self, kind: int, number: int) -> Any:
        (count,) = self._unpack(_LENGTH)
        if count > len(self._stream) - self._at:  # an item takes a byte at least
            raise _broken("a tree ends in the middle")
        if self._depth == _DEPTH:
            raise _broken("a tree is too deep")
        self._depth += 1
        made: Any = {} if kind == b"{"[0] else []
        if number >= 0 and kind != b"("[0]:  # a tuple is nowhere before it is whole
            self._numbered[number] = made
        for _ in range(count):
            node = self._node()
            if kind == b"{"[0]:
                made[node] = self._node()
            else:
                made.append(node)
        self._depth -= 1
        if kind == b"("[0]:
            made = tuple(made)
            if number >= 0:
                self._numbered[number] = made
        return made

    @staticmethod
    def _dtype(letter: int) -> np.dtype[Any]:
        if letter not in _DTYPES:
            raise _broken("an array of unknown numbers")
        return _DTYPES[letter]

    def _array(self) -> NDArray[Any]:
        letter, flags, axes = self._take(3)
        shape = struct.unpack(f"<{axes}q", self._take(8 * axes))
        dtype = self._dtype(letter)
        nbytes = dtype.itemsize * math.prod(length or 1 for length in shape)
        if min(shape, default=0) < 0 or nbytes > _MOST_NBYTES:
            raise _broken("an array of impossible shape")
        if 0 in shape:
            nbytes = 0
        flat = self._elsewhere(nbytes) if flags & _ELSEWHERE else bytearray(self._take(nbytes))
        return np.ndarray(shape, dtype, flat, order="F" if flags & _FORTRAN else "C")

    def _elsewhere(self, nbytes: int) -> NDArray[np.uint8]:
        if not self._places:
            raise _broken("a tree has more arrays than places")
        segment, offset, size = self._places.pop(0)
        if not 0 < segment <= len(self._held):
            raise _broken("an array lies in no segment")
        held: NDArray[np.uint8] = self._held[segment - 1]
        if size != nbytes or offset + nbytes > held.nbytes:
            raise _broken("an array does not lie in its segment")
        return held[offset : offset + nbytes]


class _Unmade:
    """Stands where a tuple will be."""


def _broken(why: str) -> ValueError:
    return ValueError(f"{why}: a fault of splitpipe")
