"""Many batches in one message.

Responsible for: `carry` and `carried`: batches as the frames of one message, and back.

Rules:
- frames of 64 KiB and more travel as they are: nothing copies them. Smaller ones lie together, up
  to about 256 KiB, each at a multiple of 64 bytes: a socket takes longer for a frame than for its
  bytes;
- the sizes of all frames are told; where each lies follows from them, on both sides the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeAlias

from msgspec import Meta

from splitpipe.errors import WireError
from splitpipe.wire.limits import Buffer

__all__ = ["Batch", "Heads", "carried", "carry"]

_ALONE_NBYTES = 1 << 16
_TOGETHER_NBYTES = 1 << 18
_ALIGNMENT = 64
_PADDING = tuple(bytes(count) for count in range(_ALIGNMENT))

_Count = Annotated[int, Meta(ge=0, lt=1 << 62)]
Heads: TypeAlias = list[tuple[_Count, _Count, list[_Count]]]
"""Of every batch: its sequence, its samples, and the bytes of each of its frames."""


class Batch(NamedTuple):
    """One batch: its number within what its client reads, how many samples it has, its frames."""

    sequence: int
    samples: int
    frames: Sequence[Buffer]

    @property
    def nbytes(self) -> int:
        """Bytes of its frames."""
        return sum(memoryview(frame).nbytes for frame in self.frames)


def carry(batches: Sequence[Batch]) -> tuple[Heads, list[Buffer]]:
    """Return what a message says of these batches, and the frames that follow it.

    Example:
        >>> heads, frames = carry([Batch(7, 2, [b"one"]), Batch(8, 2, [b"two", bytes(100_000)])])
        >>> heads
        [(7, 2, [3]), (8, 2, [3, 100000])]
        >>> [len(frame) for frame in frames]
        [67, 100000]
        >>> carried(heads, frames)[1].frames[0].tobytes()
        b'two'
    """
    heads: Heads = []
    frames: list[Buffer] = []
    parts: list[Buffer] = []
    filled = 0
    for sequence, samples, own in batches:
        sizes = []
        for frame in own:
            size = frame.nbytes if type(frame) is memoryview else len(frame)
            sizes.append(size)
            if not size:
                continue
            if size >= _ALONE_NBYTES or filled >= _TOGETHER_NBYTES:
                if parts:
                    frames.append(b"".join(parts))
                    parts, filled = [], 0
                if size >= _ALONE_NBYTES:
                    frames.append(frame)
                    continue
            gap = -filled % _ALIGNMENT
            parts += (_PADDING[gap], frame)
            filled += gap + size
        heads.append((sequence, samples, sizes))
    if parts:
        frames.append(b"".join(parts))
    return heads, frames


def carried(heads: Heads, frames: Sequence[Buffer]) -> list[Batch]:
    """Return the batches of a message; their frames are views of `frames`.

    Raises:
        WireError: the frames are not those that `heads` tells of.
    """
    batches: list[Batch] = []
    coming = iter(frames)
    together = memoryview(b"")
    filled = 0
    try:
        for sequence, samples, sizes in heads:
            own: list[Buffer] = []
            for size in sizes:
                if not size:
                    own.append(b"")
                    continue
                if size >= _ALONE_NBYTES or filled >= _TOGETHER_NBYTES or not filled:
                    if filled != together.nbytes:
                        raise WireError("frames of batches that are longer than was said")
                    together, filled = memoryview(next(coming)), 0
                    if size >= _ALONE_NBYTES:
                        if together.nbytes != size:
                            raise WireError(
                                f"a frame of {together.nbytes} bytes in place of {size}"
                            )
                        own.append(together)
                        together = memoryview(b"")
                        continue
                start = filled + -filled % _ALIGNMENT
                filled = start + size
                if filled > together.nbytes:
                    raise WireError("frames of batches that are shorter than was said")
                own.append(together[start:filled])
            batches.append(Batch(sequence, samples, own))
    except StopIteration:
        raise WireError(f"{len(frames)} frames, which is fewer than was said") from None
    if filled != together.nbytes or next(coming, None) is not None:
        raise WireError("frames of batches that are longer, or more, than was said")
    return batches
