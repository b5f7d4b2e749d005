"""A look at bytes of MessagePack before anything is made of them.

Responsible for: `check_head`, which proves that what a head claims is there and within limits.

Rules:
- msgspec makes a list as long as its header says before it has seen the first item. It does pass
  over a value without making anything; that pass comes first, so a claim is never believed;
- the quick tests are bounds: where one of them does not decide, the exact one, which is slower,
  does. Most heads are decided by the quick ones, at some nanoseconds a byte.
"""

from __future__ import annotations

from typing import Any

import msgspec

from splitpipe.errors import WireError
from splitpipe.wire.limits import Limits

__all__ = ["check_head"]

_SKIM: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(msgspec.Raw)
_NESTING = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_OTHERS = bytes(byte for byte in range(256) if byte not in _NESTING)
_TIMES = tuple(
    head + b"\xff"
    for head in (
        *(bytes([byte]) for byte in range(0xD4, 0xD9)),
        *(b"\xc7" + bytes([size]) for size in (4, 8, 12)),
        *(b"\xc8\x00" + bytes([size]) for size in (4, 8, 12)),
        *(b"\xc9\x00\x00\x00" + bytes([size]) for size in (4, 8, 12)),
    )
)
"""How a time stamp begins, the one extension that msgspec makes a value of by itself."""


def check_head(head: bytes, limits: Limits) -> None:
    """Refuse bytes that are not one whole value of MessagePack within `limits`.

    Raises:
        WireError: they are not.
    """
    try:
        _SKIM.decode(head)
    except msgspec.DecodeError as error:
        raise WireError(f"not a value of the wire format: {error}") from None
    except RecursionError:
        raise _too_deep(limits) from None
    # A container takes a byte at least, and so does a value: these many bytes, no more of them.
    deep = len(head.translate(None, _OTHERS)) > limits.depth
    timed = b"\xff" in head and any(mark in head for mark in _TIMES)
    if deep or timed or len(head) > limits.elements:
        _walk(head, limits)


def _too_deep(limits: Limits) -> WireError:
    return WireError(f"a value lies deeper than {limits.depth} containers, which is the limit")


def _walk(head: bytes, limits: Limits) -> None:
    """Go through every value of `head`, which is known to be whole."""
    left: list[int] = []  # of every container around, how many values still come
    at = count = 0
    while True:
        count += 1
        if count > limits.elements:
            raise WireError(f"more than {limits.elements} values, which is the limit")
        inside, at = _step(head, at)
        if inside:
            left.append(inside)
            if len(left) > limits.depth:
                raise _too_deep(limits)
            continue
        while left:
            left[-1] -= 1
            if left[-1]:
                break
            left.pop()
        if not left:
            return


_FIXED = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 1),
    **dict.fromkeys((0xCC, 0xD0), 2),
    **dict.fromkeys((0xCD, 0xD1), 3),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 5),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 9),
    **{0xD4 + power: 2 + (1 << power) for power in range(5)},
}
"""How many bytes a value of this first byte takes."""
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Text and bytes: how many bytes their length takes."""
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}


def _step(head: bytes, at: int) -> tuple[int, int]:
    """Return how many values lie inside of the one at `at`, and where what follows it begins."""
    byte = head[at]
    if byte <= 0x7F or byte >= 0xE0:
        return 0, at + 1
    if 0x80 <= byte <= 0x8F:
        return 2 * (byte & 0x0F), at + 1
    if byte <= 0x9F:
        return byte & 0x0F, at + 1
    if byte <= 0xBF:
        return 0, at + 1 + (byte & 0x1F)
    if byte in _FIXED:
        if 0xD4 <= byte <= 0xD8 and head[at + 1] == 0xFF:
            raise _no_times()
        return 0, at + _FIXED[byte]
    if byte in _SIZED:
        return 0, at + 1 + _SIZED[byte] + _number(head, at, _SIZED[byte])
    if byte in _ARRAYS:
        return _number(head, at, _ARRAYS[byte]), at + 1 + _ARRAYS[byte]
    if byte in _MAPS:
        return 2 * _number(head, at, _MAPS[byte]), at + 1 + _MAPS[byte]
    width = _EXTENSIONS[byte]
    if head[at + 1 + width] == 0xFF:
        raise _no_times()
    return 0, at + 2 + width + _number(head, at, width)


def _no_times() -> WireError:
    return WireError("a time stamp of MessagePack is no value of the wire format")


def _number(head: bytes, at: int, width: int) -> int:
    return int.from_bytes(head[at + 1 : at + 1 + width], "big")
