"""The small file beside an object's bytes that says which of its blocks are there.

Responsible for: `Identity`, what an object is; the file's format; `MarkFile`, a map of it.

Rules:
- a mark is 0 where a block is missing, else a number that this folder never used before, shifted by
  two, with `PRESENT` and, once the bytes are on the disk for certain, `DURABLE`;
- a mark is written by who holds the block's lock alone. It is 64 bits, aligned: one store on every
  machine that Python runs on. Nothing depends on that: it changes from 0 to a number and from that
  to 0 only, so that a torn one equals neither itself a moment later, nor any other;
- a reader compares the mark before copying a block with the mark behind it. On x86 loads keep their
  order. Elsewhere `fence` keeps it;
- a stamp says when a block was last wanted, on the clock of the cache. Stamps are guesses: anybody
  writes them, and a lost one costs a download at worst.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import struct
import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.cache import files
from splitpipe.errors import FormatError

__all__ = ["DURABLE", "FIXED", "PRESENT", "Identity", "MarkFile", "fence", "make_marks"]

PRESENT, DURABLE = 1, 2
FIXED: Final = np.uint64(~DURABLE & (1 << 64) - 1)
"""The bits of a mark that stay as long as the bytes do."""

PAGE_NBYTES: Final = 4096
_MAGIC: Final = b"SPMARKS1"
_HEAD: Final = struct.Struct("<8sIIQQ16s")  # magic, size of a block, 0, size, inode, digest
_ABOUT_AT: Final = 128
_MARKS_AT: Final = 3072


@dataclass(frozen=True)
class Identity:
    """What an object is: equal for equal bytes.

    Attributes:
        url: of its store.
        key: there.
        version: its tag, or what else names this version.
        size: in bytes.
        block_nbytes: the size of a block; a power of two.
    """

    url: str
    key: str
    version: str | None
    size: int
    block_nbytes: int

    @functools.cached_property
    def digest(self) -> bytes:
        """16 bytes that name it."""
        fields = [self.url, self.key, self.version, self.size, self.block_nbytes]
        return hashlib.blake2b(json.dumps(fields).encode(), digest_size=16).digest()

    @functools.cached_property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.size // self.block_nbytes)

    @property
    def marks_nbytes(self) -> int:
        """The size of its mark file."""
        return _MARKS_AT + 16 * self.blocks

    @property
    def overhead_nbytes(self) -> int:
        """What an object costs that has no block."""
        return -(-self.marks_nbytes // PAGE_NBYTES) * PAGE_NBYTES

    def extent(self, first: int, count: int) -> tuple[int, int]:
        """The bytes of some blocks, half open."""
        start = first * self.block_nbytes
        return start, min(self.size, start + count * self.block_nbytes)

    def cost(self, first: int, count: int) -> int:
        """What some blocks take on the disk: the last one is as large as its pages."""
        start, stop = self.extent(first, count)
        return -(-(stop - start) // PAGE_NBYTES) * PAGE_NBYTES

    def cost_of(self, blocks: npt.NDArray[np.int64]) -> int:
        """The same of any blocks, each given once."""
        if not len(blocks):
            return 0
        whole = len(blocks) * self.block_nbytes
        if blocks.max() == self.blocks - 1:
            whole += self.cost(self.blocks - 1, 1) - self.block_nbytes
        return int(whole)


def make_marks(descriptor: int, identity: Identity, *, inode: int) -> None:
    """Write the file of an object that has no block yet."""
    head = _HEAD.pack(_MAGIC, identity.block_nbytes, 0, identity.size, inode, identity.digest)
    about = {
        "url": identity.url,
        "key": identity.key.partition("?")[0],  # a signed key is as good as a password
        "version": identity.version,
    }
    text = json.dumps(about).encode()
    if len(text) > _MARKS_AT - _ABOUT_AT:  # for people only: the digest says what it is
        about = {name: (value or "")[:200] for name, value in about.items()}
        text = json.dumps(about).encode()[: _MARKS_AT - _ABOUT_AT]
    page = head.ljust(_ABOUT_AT, b"\0") + text
    files.write_at(descriptor, page.ljust(_MARKS_AT, b"\0"), 0)
    files.allocate(descriptor, identity.marks_nbytes)


class MarkFile:
    """A map of the marks and stamps of one object.

    Args:
        path: of the file.

    Attributes:
        identity: of the object, as far as the file tells.
        digest: its name.
        inode: of the file with the bytes.
        marks, stamps: one a block.

    Raises:
        FormatError: the file is damaged.
    """

    def __init__(self, path: str) -> None:
        nbytes = os.stat(path).st_size
        if nbytes < _MARKS_AT:
            raise FormatError(f"{path} is damaged")
        mapped = files.map_file(path, nbytes=nbytes)
        head = _HEAD.unpack_from(mapped)
        magic, block_nbytes, _, size, self.inode, self.digest = head
        about = _about(bytes(mapped[_ABOUT_AT:_MARKS_AT]))
        self.identity = Identity(
            str(about.get("url", "?")),
            str(about.get("key", "?")),
            about.get("version"),
            size,
            max(1, block_nbytes),
        )
        if magic != _MAGIC or block_nbytes < 1 or self.identity.marks_nbytes != nbytes:
            raise FormatError(f"{path} is damaged")
        count = self.identity.blocks
        self.marks: npt.NDArray[np.uint64] = np.frombuffer(mapped, np.uint64, count, _MARKS_AT)
        self.stamps: npt.NDArray[np.uint64] = np.frombuffer(
            mapped, np.uint64, count, _MARKS_AT + 8 * count
        )

    def present(self) -> npt.NDArray[np.int64]:
        """The blocks that are there, as of some moment."""
        # Of a copy: numpy looks twice, and others change what it looks at.
        return np.flatnonzero(self.marks.copy())


def _about(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text.rstrip(b"\0"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


_first, _second = threading.Lock(), threading.Lock()


def _weak_fence() -> None:
    # Letting go of a lock and then taking one is a full barrier where both are single-copy
    # sequentially consistent, as they are on ARMv8.
    with _first:
        pass
    with _second:
        pass


def _strong_fence() -> None:
    """Loads keep their order: nothing to be done."""


fence = (
    _strong_fence
    if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
    else _weak_fence
)
"""What a reader calls between copying and looking at the marks again."""
