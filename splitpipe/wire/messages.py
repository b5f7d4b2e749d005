"""What a client and the engine of an iteration tell each other.

Responsible for: the messages of the feed as values, and `write` and `read`: messages as frames.

    frame 0     [kind, version, fields...] in MessagePack
    frame 1..   of a `Delivery`: its batches (see ``carrying``)

A client begins with `Hello`, again and again until it is answered; everything else that it says
comes behind a `Welcome`. Batches have *sequences*: numbers from 0 within what this client reads.

Rules:
- everything is told by (session, sequence) and may be told twice: after any loss of a connection
  `Hello` says what the client holds and what it has acknowledged, and both sides agree again;
- who reads is lenient about fields that follow those it knows, and strict about the others;
- kinds of `Refused` say whether it makes sense to try again, and how.

Example:
    >>> read(write(Ack([(3, 7)])))
    Ack(ranges=[(3, 7)])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from splitpipe.errors import WireError
from splitpipe.wire.carrying import Batch, Heads, carried, carry
from splitpipe.wire.limits import DEFAULT, Buffer, Limits
from splitpipe.wire.scanning import check_head

__all__ = [
    "VERSION",
    "Ack",
    "Acked",
    "Bye",
    "Delivery",
    "End",
    "Failed",
    "FromClient",
    "FromEngine",
    "Hello",
    "Message",
    "Ping",
    "Pong",
    "PushBack",
    "Ranges",
    "Refused",
    "Welcome",
    "Window",
    "read",
    "read_from_client",
    "read_from_engine",
    "write",
]

VERSION = 1

Count = Annotated[int, Meta(ge=0, lt=1 << 62)]
Ranges: TypeAlias = list[tuple[Count, Count]]
"""Pairs (start, stop) of sequences: those from start on, before stop."""
Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=65536)]
Failure: TypeAlias = dict[Name, str | int | float | bool | None]


class _Message(Struct, array_like=True):
    """What all messages have in common."""


class Hello(_Message, tag="hello"):
    """A client begins, or goes on after a loss of its connection.

    Args:
        ticket: what the REST service gave for this session.
        session: the client's own name for itself: 16 to 64 of A-Z a-z 0-9 _ -, random, the same
            as long as it lives.
        rank: of which rank it is.
        client: the name under which it follows, where many do; empty where they share.
        window_batches: how many batches may be outstanding: sent and not acknowledged.
        window_nbytes: how many bytes may be; one batch may be more.
        acks: sequences that it has acknowledged and not heard to be journalled.
        held: sequences that it has received and not acknowledged.
        rewind: let this be the next sequence of all that it reads; only in a session's first.
        frame_nbytes: the most bytes that it accepts in one frame. A batch with a larger one is
            `Failed`.
    """

    ticket: Annotated[str, Meta(max_length=1024)]
    session: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{16,64}\\Z")]
    rank: Count
    client: Name
    window_batches: Count
    window_nbytes: Count
    acks: Ranges
    held: Ranges
    rewind: Count | None = None
    frame_nbytes: Count = DEFAULT.nbytes


class Ack(_Message, tag="ack"):
    """These batches are done with. Sent again until they are `Acked`."""

    ranges: Ranges


class PushBack(_Message, tag="pushback"):
    """These batches were received and will not be used: another may have them. Said with a
    `Window` of none in front of it, or they would come back at once.
    """

    ranges: Ranges


class Window(_Message, tag="window"):
    """How many batches and bytes may be outstanding from now on. With none nothing is sent."""

    batches: Count
    nbytes: Count


class Ping(_Message, tag="ping"):
    """The client lives. Sent every third of the lease."""


class Bye(_Message, tag="bye"):
    """The client leaves: `acks` are done with, all else that it holds goes back. Answered by
    `Acked`, and the session is over.
    """

    acks: Ranges


class Welcome(_Message, tag="welcome"):
    """The answer to a `Hello`.

    Args:
        iteration: its id.
        total_batches: how many sequences there are for this client's rank, if that is known.
        lease_s: for how long, in seconds, a client that is not heard of keeps what it holds.
        dropped: of what it said it held, what is not its own any more. It forgets them.
        next: the sequence below which everything was acknowledged by somebody.
    """

    iteration: Name
    total_batches: Count | None
    lease_s: Annotated[float, Meta(gt=0)]
    dropped: Ranges = []
    next: Count = 0


class Acked(_Message, tag="acked"):
    """These need not be acknowledged again: it is journalled."""

    ranges: Ranges


class Failed(_Message, tag="failed"):
    """There is no batch `sequence`: this went wrong. Those before it still come.

    Args:
        sequence: which one.
        error: of texts and numbers: "kind" (the name of an exception) and "message" at least,
            "stage", "record", "details".
    """

    sequence: Count
    error: Failure


class End(_Message, tag="end"):
    """Everything that this client could have had was acknowledged.

    Args:
        total: how many sequences there were.
    """

    total: Count


class Refused(_Message, tag="refused"):
    """What the client said was not taken.

    Args:
        reason: for a person.
        retry: whether to say `Hello` again.
        ticket: whether to ask for a new ticket before that.
    """

    reason: Text
    retry: bool
    ticket: bool = False


class Pong(_Message, tag="pong"):
    """The answer to a `Ping`."""


class _Batches(_Message, tag="batches"):
    heads: Heads


class Delivery(Struct):
    """Batches, on their way to a client. Their frames are not looked into."""

    batches: list[Batch]


FromClient: TypeAlias = Hello | Ack | PushBack | Window | Ping | Bye
_EngineHeads: TypeAlias = Welcome | Acked | Failed | End | Refused | Pong | _Batches
FromEngine: TypeAlias = Welcome | Acked | Failed | End | Refused | Pong | Delivery
Message: TypeAlias = FromClient | FromEngine

_ENCODER = msgspec.msgpack.Encoder()
_CLIENT: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(tuple[Literal[1], FromClient])
_ENGINE: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(tuple[Literal[1], _EngineHeads])


def write(message: Message) -> list[Buffer]:
    """Return `message` as frames."""
    if type(message) is Delivery:
        heads, payload = carry(message.batches)
        return [_ENCODER.encode((VERSION, _Batches(heads))), *payload]
    return [_ENCODER.encode((VERSION, message))]


def read(frames: Sequence[Buffer], *, limits: Limits = DEFAULT) -> Message:
    """Return the message that `frames` are, of either side."""
    try:
        return read_from_engine(frames, limits=limits)
    except WireError:
        return read_from_client(frames, limits=limits)


def read_from_client(frames: Sequence[Buffer], *, limits: Limits = DEFAULT) -> FromClient:
    """Return the message of a client that `frames` are.

    Raises:
        WireError: they are none, of another version, or beyond `limits`.
    """
    message: FromClient = _read(_CLIENT, frames, limits)
    if len(frames) > 1:
        raise WireError(f"{len(frames) - 1} frames behind a message that has none")
    return message


def read_from_engine(frames: Sequence[Buffer], *, limits: Limits = DEFAULT) -> FromEngine:
    """Return the message of an engine that `frames` are. Frames of batches are views of them.

    Raises:
        WireError: they are none, of another version, or beyond `limits`.
    """
    message: _EngineHeads = _read(_ENGINE, frames, limits)
    if type(message) is _Batches:
        return Delivery(carried(message.heads, frames[1:]))
    if len(frames) > 1:
        raise WireError(f"{len(frames) - 1} frames behind a message that has none")
    return message  # type: ignore[return-value]  # the one that is none of them was dealt with


def _read(decoder: msgspec.msgpack.Decoder[Any], frames: Sequence[Buffer], limits: Limits) -> Any:
    if not 0 < len(frames) <= limits.frames:
        raise WireError(f"a message of {len(frames)} frames: it takes 1 to {limits.frames}")
    nbytes = sum(memoryview(frame).nbytes for frame in frames)
    if nbytes > limits.nbytes:
        raise WireError(f"a message of {nbytes} bytes: {limits.nbytes} is the limit")
    head = bytes(frames[0])
    check_head(head, limits)
    try:
        return decoder.decode(head)[1]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a message of the feed, version {VERSION}: {error}") from None
