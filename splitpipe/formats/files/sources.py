"""The files of a foreign dataset: what they are known by, and reading at any place of them.

Responsible for: `Fingerprint` (size, time and sampled bytes, by which a change is seen),
`SourceFiles` (a bounded number of open files, each compared with its fingerprint when opened).

Rules:
- files are read by pread, never mapped: they belong to somebody else, and one that is cut while a
  reader is at work must end in an error, not in SIGBUS;
- no lock and no seek position: threads and forked children may share a `SourceFiles`;
- a place is compared with the file's size before anything of that length is allocated.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.storage import files

__all__ = [
    "Fingerprint",
    "OpenFile",
    "Places",
    "Readable",
    "SourceFiles",
    "fingerprint",
    "read_places",
]

DEFAULT_OPEN_FILES = 128
_SAMPLE_NBYTES = 4096
_SAMPLES = 5


class Fingerprint(NamedTuple):
    """What a file was when it was indexed.

    Attributes:
        size: in bytes.
        mtime_ns: when it was last written to.
        sample: CRC32C of its first, its last and three blocks between.
    """

    size: int
    mtime_ns: int
    sample: int


def fingerprint(path: str, descriptor: int | None = None) -> Fingerprint:
    """What a file is known by.

    Raises:
        StorageError: it is not there or cannot be read.
    """
    own = files.open_file(path, os.O_RDONLY) if descriptor is None else descriptor
    try:
        with files.translated("look at the file", path):
            found = os.fstat(own)
        last = max(0, found.st_size - _SAMPLE_NBYTES)
        sample = 0
        for offset in sorted({last * number // (_SAMPLES - 1) for number in range(_SAMPLES)}):
            sample = google_crc32c.extend(
                sample, files.read_at(own, min(_SAMPLE_NBYTES, found.st_size), offset, path)
            )
    finally:
        if descriptor is None:
            files.close(own)
    return Fingerprint(found.st_size, found.st_mtime_ns, sample)


class OpenFile:
    """An open file of a source; it is closed when nobody refers to it any more."""

    __slots__ = ("descriptor", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = files.open_file(path, os.O_RDONLY)
        with files.translated("look at the file", path):
            self.size = os.fstat(self.descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset`` on.

        Raises:
            CorruptRecord: the file does not reach that far.
        """
        if offset + length <= self.size:
            # The usual case by itself: a context manager would double its cost.
            try:
                data = os.pread(self.descriptor, length, offset)
            except OSError:
                data = b""
            if len(data) != length:
                data = files.read_at(self.descriptor, length, offset, self.path)
            if len(data) == length:
                return data
        raise CorruptRecord(
            f"{self.path}: bytes {offset} to {offset + length} are needed, the file ends before: "
            "it was cut after it was indexed; open the dataset again"
        )

    def read_into(self, buffer: npt.NDArray[np.uint8], offset: int) -> int:
        """Fill ``buffer`` from ``offset`` on; how many bytes there were, 0 at the end."""
        with files.translated("read", self.path):
            # A read beyond the first is needed only where the system gives less than asked for.
            done = 0
            while done < len(buffer):
                got = os.preadv(self.descriptor, [buffer[done:].data], offset + done)
                if not got:
                    break
                done += got
            return done

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self.descriptor)


class Readable(Protocol):
    """A file, or what is inside a compressed one."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset`` on, or ``CorruptRecord``."""


class SourceFiles:
    """The files of one source, opened when they are needed.

    Args:
        paths: absolute paths.
        prints: what each was when it was indexed; compared whenever a file is opened.
        within: gives what is read of an open file, by its number; the file itself unless said.
        max_open: how many stay open at once.
    """

    __slots__ = ("_max_open", "_open", "_prints", "_within", "paths")

    def __init__(
        self,
        paths: Sequence[str],
        prints: Sequence[Fingerprint],
        *,
        within: Callable[[int, OpenFile], Readable] | None = None,
        max_open: int = DEFAULT_OPEN_FILES,
    ) -> None:
        self.paths = tuple(paths)
        self._within = within
        self._prints = tuple(prints)
        self._max_open = max_open
        self._open: OrderedDict[int, Readable] = OrderedDict()

    def open(self, number: int) -> Readable:
        """A file, opened if it is not open.

        Raises:
            StorageError: it is missing or cannot be read.
            FormatError: it is not what was indexed.
        """
        known = self._open.get(number)
        if known is not None:
            return known
        file = OpenFile(self.paths[number])
        self.compare(number, file)
        opened: Readable = file if self._within is None else self._within(number, file)
        while len(self._open) >= self._max_open:
            try:
                self._open.popitem(last=False)
            except KeyError:  # another thread was faster
                break
        self._open[number] = opened
        return opened

    def compare(self, number: int, file: OpenFile) -> None:
        """Raise ``FormatError`` unless a file is what was indexed."""
        found = fingerprint(file.path, file.descriptor)
        if found != self._prints[number]:
            raise FormatError(
                f"{file.path} is not what was indexed ({_difference(self._prints[number], found)}"
                "): open the dataset again, which indexes it anew"
            )

    def close(self) -> None:
        """Let go of all files; they are opened again when needed."""
        self._open.clear()


def _difference(then: Fingerprint, now: Fingerprint) -> str:
    if then.size != now.size:
        return f"it had {then.size} bytes and has {now.size}"
    if then.mtime_ns != now.mtime_ns:
        return "it was written to since"
    return "its bytes changed, its size and time did not"


@dataclass(frozen=True, slots=True)
class Places:
    """Where records lie: numbers of files, offsets, lengths, an array each, of shape (n,)."""

    numbers: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


# Records closer to each other than this are read by one call, gap and all.
_GAP_NBYTES = 512
_RUN_NBYTES = 4 << 20


def runs_of(places: Places) -> list[int]:
    """Where to cut a batch so that each part is one short stretch of one file.

    Returns:
        Bounds: part k is ``bounds[k]`` to ``bounds[k + 1]``.
    """
    starts = places.offsets
    stops = starts + places.lengths
    gaps = starts[1:] - stops[:-1]
    apart = (gaps < 0) | (gaps > _GAP_NBYTES) | (places.numbers[1:] != places.numbers[:-1])
    bounds = [0]
    for cut in (*(np.flatnonzero(apart) + 1).tolist(), len(starts)):
        # A stretch that is too long for one buffer is cut where it reaches the limit.
        while stops[cut - 1] - starts[bounds[-1]] > _RUN_NBYTES and cut - bounds[-1] > 1:
            within = np.searchsorted(
                stops[bounds[-1] : cut], starts[bounds[-1]] + _RUN_NBYTES, side="right"
            )
            bounds.append(bounds[-1] + max(1, int(within)))
            if bounds[-1] == cut:
                break
        if bounds[-1] != cut:
            bounds.append(cut)
    return bounds


def read_places(source: SourceFiles, places: Places) -> list[bytes]:
    """The bytes at many places, in the given order, neighbours by one call.

    Args:
        source: the files.
        places: within the files.
    """
    records: list[bytes] = []
    bounds = runs_of(places)
    numbers, firsts = places.numbers.tolist(), places.offsets.tolist()
    lengths = places.lengths.tolist()
    for start, stop in pairwise(bounds):
        opened = source.open(numbers[start])
        first = firsts[start]
        if stop - start == 1:
            records.append(opened.read(first, lengths[start]))
            continue
        data = opened.read(first, firsts[stop - 1] + lengths[stop - 1] - first)
        records += [
            data[offset - first : offset - first + length]
            for offset, length in zip(firsts[start:stop], lengths[start:stop], strict=True)
        ]
    return records
