"""The messages that tasks send to one another, and their wire form.

Responsible for: what a message says (frozen in a fixed header) and nothing about what it carries.

Rules:
- every message names its run, its producer, its epoch and its sequence number, so that a gap, a
  repeat or a message of a dead run is seen and never guessed at;
- an `Item` covers the source positions ``start:stop``: a stream of items can be checked for
  completeness without looking into a payload;
- what follows the header is opaque here (see `splitpipe.transport.envelope`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from splitpipe.transport.base import Buffer

__all__ = [
    "NEVER",
    "NOWHERE",
    "Claim",
    "Credit",
    "End",
    "Failed",
    "Item",
    "Message",
    "claim",
    "decode",
    "encode",
]

_HEADER = struct.Struct("<BBHIQQQQQQQQ")
"""kind, flags, producer, epoch, run, sequence, start, stop, count, elapsed (ns), payload
(bytes), first."""

_REPORTED = 1
"""Flag: a report stands between header and body, behind its length."""

_LENGTH = struct.Struct("<I")

NEVER = 2**32 - 1
"""The epoch that ends all: a reader that will not read on says that it does not want it."""

NOWHERE = 2**64 - 1
"""The sequence of a failure that has no place in the order: a worker could not even start."""


@dataclass(slots=True)
class Message:
    """What every message says.

    Attributes:
        run: number of the run, the same in all its messages.
        producer: number of the worker that sent it.
        epoch: which pass over the source.
        sequence: its number in the stream of its region; the order. Or `NOWHERE`.
        start, stop: the positions of the region's head that it covers.
        count: how many values it holds, or what the kind says.
        elapsed_ns: time that the producer was busy with it.
        nbytes: of its values, wherever they lie, or what the kind says.
        body: the envelope, opaque to this module.
        first: number, in the stream of the region's head, of the first item that went into it;
            where the head is a source, its position.
        report: what else is to be said of the unit of work (see `splitpipe.runtime.budgets`);
            empty, as a rule.
    """

    kind: ClassVar[int] = 0
    run: int
    producer: int
    epoch: int
    sequence: int
    start: int
    stop: int
    count: int = 0
    elapsed_ns: int = 0
    nbytes: int = 0
    body: Buffer = b""
    first: int = 0
    report: Buffer = b""


class Item(Message):
    """A chunk of values; of none, where everything was filtered out."""

    __slots__ = ()
    kind = 1


class End(Message):
    """An epoch ended: ``stop`` positions were consumed, ``count`` values sent in it."""

    __slots__ = ()
    kind = 2


class Failed(Message):
    """A stage failed at this place of the order.

    ``count`` values came before it in the same unit of work; ``nbytes`` is the length of the
    failure report with which the body begins, the envelope of those values follows.
    """

    __slots__ = ()
    kind = 3


class Claim(Message):
    """Backwards: whichever worker takes it may make positions ``start:stop`` into one Item."""

    __slots__ = ()
    kind = 4


class Credit(Message):
    """Backwards: ``count`` more messages may be sent, of at most ``start`` values each (0: any).

    With ``stop`` = 1 the rest of the epoch is not wanted; a ``sequence`` beyond 0 says that the
    reader has everything before message ``sequence - 1`` and waits for it.
    """

    __slots__ = ()
    kind = 5


_KINDS: dict[int, type[Message]] = {cls.kind: cls for cls in (Item, End, Failed, Claim, Credit)}


def encode(message: Message) -> bytes:
    """Return the header of `message` (72 bytes, little endian) and its report, if it has one; the
    body follows them on the wire.

    Example:
        >>> wire = encode(Claim(run=1, producer=0, epoch=0, sequence=7, start=70, stop=80))
        >>> len(wire), decode(wire).stop
        (72, 80)
    """
    report = message.report
    header = _HEADER.pack(
        message.kind,
        _REPORTED if report else 0,
        message.producer,
        message.epoch,
        message.run,
        message.sequence,
        message.start,
        message.stop,
        message.count,
        message.elapsed_ns,
        message.nbytes,
        message.first,
    )
    return b"".join((header, _LENGTH.pack(len(report)), report)) if report else header


def claim(run: int, epoch: int, sequence: int, start: int, stop: int, kind: int = 0) -> bytes:
    """Return the wire form of a `Claim` whose count is `kind`: what a merge sends for every unit.

    Example:
        >>> claim(1, 0, 7, 70, 80) == encode(Claim(1, 0, 0, 7, 70, 80))
        True
    """
    return _HEADER.pack(Claim.kind, 0, 0, epoch, run, sequence, start, stop, kind, 0, 0, 0)


def decode(wire: Buffer) -> Message:
    """Return the message that `wire` holds; its body is a view of `wire`, not a copy.

    Raises:
        ValueError: `wire` is shorter than a header or of an unknown kind.
    """
    if len(wire) < _HEADER.size:
        raise ValueError(f"a message of {len(wire)} bytes is shorter than its header")
    kind, flags, producer, epoch, run, sequence, start, stop, count, elapsed, nbytes, first = (
        _HEADER.unpack_from(wire)
    )
    cls = _KINDS.get(kind)
    if cls is None:
        raise ValueError(f"unknown kind of message: {kind}")
    body = memoryview(wire)[_HEADER.size :]
    report: Buffer = b""
    if flags & _REPORTED:
        begin = _LENGTH.size
        end = begin + _LENGTH.unpack_from(body)[0]
        report, body = bytes(body[begin:end]), body[end:]
    return cls(
        *(run, producer, epoch, sequence, start, stop, count, elapsed, nbytes, body, first, report)
    )
