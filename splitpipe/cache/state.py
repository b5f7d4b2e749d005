"""The shared file that says how full a cache is, and who uses it.

Responsible for: `State`, a map of that file: what is used and reserved, the counters that all
processes share, one *row* for each process, and in it *slots*, one for each stretch of blocks that
is under way: being fetched, or being thrown out.

Rules:
- numbers of the head, and whether a slot is in use, are changed under the lock of `Account` alone;
- a change that concerns several numbers goes through `change`: it notes what they will be, then
  sets them, and whoever has the lock next finishes what a dead process left (`finish`). So what is
  noted of a cache is exact after any kill;
- the machine's memory is what this file is about: after a restart of the machine it is made anew.
"""

from __future__ import annotations

import functools
import hashlib
import os
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.cache import files
from splitpipe.errors import FormatError

__all__ = ["EVICTING", "FILLING", "MAKING", "NO_LIMIT", "ROWS", "SLOTS", "State", "this_boot"]

ROWS: Final = 512
SLOTS: Final = 32
NO_LIMIT: Final = 1 << 62
FILLING, EVICTING, MAKING = 1, 2, 3
"""What a slot is for: blocks that come, blocks that go, and an object's own small file."""

_MAGIC: Final = b"SPCACHE1"
_HEAD_NBYTES: Final = 4096
_HEAD: Final = np.dtype(
    [
        ("magic", "S8"),
        ("boot", "u8"),
        ("used", "u8"),
        ("reserved", "u8"),
        ("clock", "u8"),
        ("evictions", "u8"),
        ("limit", "u8"),
        ("open_change", "u8"),
        ("next_used", "u8"),
        ("next_reserved", "u8"),
        ("next_slot", "u8"),
        ("next_nbytes", "u8"),
    ]
)
_SLOT: Final = np.dtype(
    [
        ("digest", "u1", 16),
        ("first", "u8"),
        ("count", "u8"),
        ("number", "u8"),
        ("kind", "u8"),
        ("nbytes", "u8"),
    ]
)
_ROW: Final = np.dtype(
    [
        ("taken", "u8"),
        ("pid", "u8"),
        ("limit", "u8"),
        ("unused", "u8", 5),
        ("slots", _SLOT, SLOTS),
    ]
)
STATE_NBYTES: Final = _HEAD_NBYTES + ROWS * _ROW.itemsize


@functools.cache
def this_boot() -> int:
    """A number for the time since this machine was started; never 0."""
    name = ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        name = file.read()
    if not name:
        import psutil

        name = str(int(psutil.boot_time()))
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def make_state(path: str) -> None:
    """Make the file, unless somebody else does."""
    head = np.zeros(1, _HEAD)
    head["magic"] = _MAGIC
    files.publish(path, head.tobytes(), nbytes=STATE_NBYTES)


class State:
    """A map of the shared file.

    Args:
        path: of the file.

    Attributes:
        evictions: grows with every eviction, between the clearing of marks and the punching.
        clock_word: the clock, where it is quick to get.

    Raises:
        FormatError: it is none of ours.
    """

    def __init__(self, path: str) -> None:
        with files.translated("open its accounts", path):
            if os.stat(path).st_size != STATE_NBYTES:
                raise FormatError(f"{path} is damaged; `splitpipe cache check` makes it anew")
            mapped = files.map_file(path, nbytes=STATE_NBYTES)
        head: npt.NDArray[Any] = np.frombuffer(mapped, _HEAD, 1)
        self.rows: npt.NDArray[Any] = np.frombuffer(mapped, _ROW, ROWS, _HEAD_NBYTES)
        words = mapped[: _HEAD.itemsize].cast("Q")
        self._words = words
        self.evictions = words[5:6]
        self.clock_word = words[4:5]
        if bytes(head["magic"][0]) != _MAGIC:
            raise FormatError(f"{path} is damaged; `splitpipe cache check` makes it anew")

    @property
    def boot(self) -> int:
        """The start of the machine that all this is about."""
        return self._words[1]

    @boot.setter
    def boot(self, value: int) -> None:
        self._words[1] = value

    @property
    def used(self) -> int:
        """Bytes of what is there."""
        return self._words[2]

    @property
    def reserved(self) -> int:
        """Bytes of what slots hold."""
        return self._words[3]

    @property
    def clock(self) -> int:
        """Counts the blocks that were ever asked for, and times at which some were wanted: what
        marks and stamps are made of.
        """
        return self._words[4]

    @clock.setter
    def clock(self, value: int) -> None:
        self._words[4] = value

    @property
    def limit(self) -> int:
        """The smallest limit of the living."""
        return self._words[6]

    @limit.setter
    def limit(self, value: int) -> None:
        self._words[6] = value

    def count_eviction(self) -> None:
        """Tell all readers that marks were cleared; under the lock."""
        self._words[5] += 1

    def change(self, used: int, reserved: int, *, row: int, slot: int, nbytes: int) -> None:
        """Set used and reserved, and what a slot holds, all or nothing; under the lock."""
        words = self._words
        words[8], words[9], words[10], words[11] = used, reserved, row * SLOTS + slot, nbytes
        words[7] = 1
        self._apply()

    def finish(self) -> None:
        """Bring to its end what somebody was killed in; first thing under the lock."""
        if self._words[7]:
            self._apply()

    def _apply(self) -> None:
        words = self._words
        words[2], words[3] = words[8], words[9]
        row, slot = divmod(words[10], SLOTS)
        self.rows[row]["slots"][slot]["nbytes"] = words[11]
        words[7] = 0

    def reset(self, used: int) -> None:
        """What is used was counted, and nobody is at work; under the lock."""
        for row in np.flatnonzero(self.rows["taken"]):
            self.rows[row]["slots"]["nbytes"] = 0
        words = self._words
        words[7] = 0
        words[2], words[3] = used, 0
