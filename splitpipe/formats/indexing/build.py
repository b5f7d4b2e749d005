"""Scanning a foreign source with all processors.

Responsible for: `Scanner` (what a format does with a stretch of a file), and `build`, which cuts a
source into jobs, runs them in threads, and gives the bytes of the index.

Rules:
- threads, not processes: scans are numpy calls that let go of the interpreter's lock, and opening
  a dataset must not start a program of the user's a second time;
- a record belongs to the stretch in which it begins, so that any cutting gives the same index;
- the first error in the order of the files is the one that is raised;
- a source that changed while it was read gives an error, not an index.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import google_crc32c

from splitpipe.errors import FormatError
from splitpipe.formats.base import Indexing
from splitpipe.formats.files.sources import Fingerprint, OpenFile, fingerprint
from splitpipe.formats.indexing.index import Contents, IndexedFile, encode_index
from splitpipe.formats.indexing.parts import Parts, Scanned

__all__ = ["Build", "Scanner", "Stretch"]

_JOB_NBYTES = 16 << 20
_MOST_JOBS = 4096

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a file to scan.

    Attributes:
        file: the open file.
        start: the first byte.
        stop: the byte after the last; a record that begins before it may end after it.
        before: sum of what `Scanner.count` told of all earlier bytes of the file.
        stopped: set when the build was given up: a scan then ends soon, with whatever it has.
    """

    file: OpenFile
    start: int
    stop: int
    before: int
    stopped: threading.Event


class Scanner(Protocol):
    """What a format does to index its files. Its methods are called from several threads."""

    @property
    def format(self) -> str:
        """The format's name."""

    @property
    def options(self) -> dict[str, Any]:
        """Options that change the entries, as JSON values."""

    @property
    def words(self) -> int:
        """How many words an entry has; the first two are offset and length."""

    @property
    def counts(self) -> bool:
        """Whether a scan needs to know what `count` says of all that is before it."""

    def splittable(self, file: OpenFile) -> bool:
        """Whether a file may be scanned from any byte on; else it is scanned whole."""

    def count(self, stretch: Stretch) -> int:
        """What later stretches of the file must know of this one, as a number to be added up."""

    def scan(self, stretch: Stretch) -> Scanned:
        """The records that begin in a stretch."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch, by the number of its file."""

    number: int
    start: int
    stop: int


@dataclass(slots=True)
class Build:
    """One attempt to index a source.

    Attributes:
        scanner: of its format.
        contents: what the index is about.
        paths: its files, absolute.
        prints: what each of them is now.
        indexing: with how many threads, and who wants to know how far it is.
    """

    scanner: Scanner
    contents: Contents
    paths: Sequence[str]
    prints: Sequence[Fingerprint]
    indexing: Indexing
    _stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(known.size for known in self.prints)

    @property
    def plan(self) -> bytes:
        """Changes when results of an earlier attempt are of no use: 16 bytes."""
        told: list[object] = [self.scanner.format, self.scanner.options, self.scanner.words]
        told += [self._job_nbytes, list(self.contents.names), [list(p) for p in self.prints]]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()[:16]

    @property
    def _job_nbytes(self) -> int:
        return max(_JOB_NBYTES, self.nbytes // _MOST_JOBS)

    def run(self, parts: Parts) -> Iterator[bytes]:
        """Scan what is not in `parts` yet; the bytes of the index, piece by piece.

        Raises:
            FormatError: the source has broken records, or changed while it was read.
            StorageError: a file cannot be read, or a part cannot be kept.
        """
        jobs = list(self._jobs())
        try:
            self._scan(jobs, parts)
        finally:
            self._stopped.set()
        for path, known in zip(self.paths, self.prints, strict=True):
            if fingerprint(path) != known:
                raise FormatError(
                    f"{path} changed while it was indexed: open the dataset again when nobody "
                    "writes to it"
                )
        yield from encode_index(
            self.contents,
            self._listed(jobs, parts),
            self.scanner.words,
            (one.entries for job in range(len(jobs)) for one in parts.get(job)),
            (one.blob for job in range(len(jobs)) for one in parts.get(job)),
        )

    def _jobs(self) -> Iterator[tuple[_Piece, ...]]:
        """The source in jobs of about the same size: parts of large files, many small files."""
        job: list[_Piece] = []
        held = 0
        for piece in self._pieces():
            job.append(piece)
            held += piece.stop - piece.start + 4096  # opening a file costs as much as so many bytes
            if held >= self._job_nbytes:
                yield tuple(job)
                job, held = [], 0
        if job:
            yield tuple(job)

    def _pieces(self) -> Iterator[_Piece]:
        step = self._job_nbytes
        for number, (path, known) in enumerate(zip(self.paths, self.prints, strict=True)):
            # Files are read to find out only where there is something to be cut.
            if known.size <= step or not self.scanner.splittable(OpenFile(path)):
                yield _Piece(number, 0, known.size)
            else:
                for start in range(0, known.size, step):
                    yield _Piece(number, start, min(start + step, known.size))

    def _scan(self, jobs: Sequence[Sequence[_Piece]], parts: Parts) -> None:
        missing = [job for job in range(len(jobs)) if not parts.has(job)]
        sizes = [sum(piece.stop - piece.start for piece in pieces) for pieces in jobs]
        before = self._before(jobs) if missing and self.scanner.counts else {}
        done = self.nbytes - sum(sizes[job] for job in missing)

        def work(job: int) -> int:
            stretches = (self._stretch(piece, before.get(piece, 0)) for piece in jobs[job])
            results = [self.scanner.scan(stretch) for stretch in stretches]
            if not self._stopped.is_set():
                parts.put(job, results)
            return sizes[job]

        self._tell(done)
        for nbytes in self._each(work, missing):
            done += nbytes
            self._tell(done)

    def _before(self, jobs: Sequence[Sequence[_Piece]]) -> dict[_Piece, int]:
        """What `Scanner.count` tells of everything in front of each piece, in its file."""
        pieces = [piece for job in jobs for piece in job]
        # What comes last in its file is before nothing.
        counted = [a for a, b in pairwise(pieces) if a.number == b.number]
        told = dict(
            zip(
                counted,
                self._each(lambda piece: self.scanner.count(self._stretch(piece, 0)), counted),
                strict=True,
            )
        )
        before: dict[_Piece, int] = {}
        total = 0
        for piece in pieces:
            total = 0 if piece.start == 0 else total
            before[piece] = total
            total += told.get(piece, 0)
        return before

    def _stretch(self, piece: _Piece, before: int) -> Stretch:
        opened = OpenFile(self.paths[piece.number])
        return Stretch(opened, piece.start, piece.stop, before, self._stopped)

    def _each(self, work: Callable[[Any], T], items: Sequence[Any]) -> Iterator[T]:
        """Results in the order of the items, worked on by threads."""
        threads = min(self.indexing.processors, len(items))
        if threads <= 1:
            yield from map(work, items)
            return
        pool = ThreadPoolExecutor(threads, thread_name_prefix="splitpipe-index")
        try:
            yield from pool.map(work, items)
        except BaseException:
            self._stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _tell(self, done: int) -> None:
        if self.indexing.progress is not None:
            self.indexing.progress(done, self.nbytes)

    def _listed(self, jobs: Sequence[Sequence[_Piece]], parts: Parts) -> list[IndexedFile]:
        listed = [
            IndexedFile(name, known, 0, 0)
            for name, known in zip(self.contents.names, self.prints, strict=True)
        ]
        for job, pieces in enumerate(jobs):
            for piece, one in zip(pieces, parts.get(job), strict=True):
                listed[piece.number] = _with(listed[piece.number], one)
        return listed


def _with(file: IndexedFile, scanned: Scanned) -> IndexedFile:
    """A file's line in the index after one more stretch of it."""
    return IndexedFile(
        file.name,
        file.known_by,
        0,
        file.rows + len(scanned.entries),
        file.skipped + scanned.skipped,
        {**file.notes, **scanned.notes},
        file.blob_nbytes + len(scanned.blob),
        google_crc32c.extend(file.blob_crc, scanned.blob),
    )
