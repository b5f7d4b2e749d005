"""What the scans of a build found, kept until the index is written.

Responsible for: `Scanned` (what one stretch of a file gave) and the two places where the results of
jobs wait: `MemoryParts`, and `FolderParts`, a file a job, which a later build finds again.

Rules:
- a part file has its name only when it is complete, and is believed only if its checksum fits and
  it is of the same plan: same source, same options, same cutting into jobs;
- the folder is ours: what else lies in it is of an earlier plan and is removed.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.errors import StorageError
from splitpipe.storage import files

__all__ = ["FolderParts", "MemoryParts", "Parts", "Scanned"]

_MAGIC = b"SPLITPRT"
_DIGEST_NBYTES = 16
_START = len(_MAGIC) + _DIGEST_NBYTES + 8
_LARGEST = 1 << 40


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one stretch of a file gave.

    Attributes:
        entries: a uint64 array of shape (records, words): offset, length, and what the format
            adds.
        skipped: how many broken records were left out.
        notes: what the format has to remember of the file, as JSON values; of several stretches
            of one file, later ones win.
        blob: the same, as bytes; of several stretches, one after the other.
    """

    entries: npt.NDArray[np.uint64]
    skipped: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    blob: bytes = b""


class Parts(Protocol):
    """Where results of jobs wait; called from several threads, for different jobs."""

    def has(self, job: int) -> bool:
        """Whether the result of a job is here."""

    def put(self, job: int, results: Sequence[Scanned]) -> None:
        """Keep the result of a job: one `Scanned` for each of its stretches."""

    def get(self, job: int) -> Sequence[Scanned]:
        """The result of a job."""


class MemoryParts:
    """Results in memory, for small sources and for folders that cannot be written to."""

    def __init__(self) -> None:
        self._results: dict[int, Sequence[Scanned]] = {}

    def has(self, job: int) -> bool:
        """Whether the result of a job is here."""
        return job in self._results

    def put(self, job: int, results: Sequence[Scanned]) -> None:
        """Keep the result of a job."""
        self._results[job] = results

    def get(self, job: int) -> Sequence[Scanned]:
        """The result of a job."""
        return self._results[job]


class FolderParts:
    """Results in files, so that a build that was killed is continued by the next.

    Args:
        folder: of this build alone; made if it is not there.
        plan: what the results are of, 16 bytes.
        words: how many words an entry has.
    """

    def __init__(self, folder: str, plan: bytes, words: int) -> None:
        self._folder = folder
        self._plan = plan
        self._words = words
        with files.translated("make the folder of the build", folder):
            os.makedirs(folder, exist_ok=True)
            # A part is looked at whole, once; what is of another plan makes room now.
            self._here = {name for name in os.listdir(folder) if self._is_ours(name)}
            for name in os.listdir(folder):
                if name not in self._here:
                    os.unlink(os.path.join(folder, name))

    def _is_ours(self, name: str) -> bool:
        stem, suffix = os.path.splitext(name)
        if suffix != ".part" or not stem.isdecimal():
            return False
        return self._checked(os.path.join(self._folder, name)) is not None

    def _checked(self, path: str) -> bytes | None:
        data = files.read_whole(path, limit=_LARGEST)
        whole = data[:-4]
        if len(whole) < _START or not whole.startswith(_MAGIC + self._plan):
            return None
        return whole if google_crc32c.value(whole) == int.from_bytes(data[-4:], "little") else None

    def _path(self, job: int) -> str:
        return os.path.join(self._folder, f"{job:08d}.part")

    def has(self, job: int) -> bool:
        """Whether the result of a job is here."""
        return os.path.basename(self._path(job)) in self._here

    def put(self, job: int, results: Sequence[Scanned]) -> None:
        """Keep the result of a job. It need not be durable: the checksum tells what arrived."""
        head = json.dumps(
            [[len(one.entries), one.skipped, one.notes, len(one.blob)] for one in results]
        ).encode("ascii")
        data = b"".join(
            [
                _MAGIC,
                self._plan,
                len(head).to_bytes(8, "little"),
                head,
                *(one.entries.astype("<u8", copy=False).tobytes() for one in results),
                *(one.blob for one in results),
            ]
        )
        path = self._path(job)
        temporary = f"{path}.new"
        descriptor = files.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            files.write_at(descriptor, data, 0, temporary)
            crc = google_crc32c.value(data)
            files.write_at(descriptor, crc.to_bytes(4, "little"), len(data), temporary)
        finally:
            files.close(descriptor)
        with files.translated("keep a part of the index", path):
            os.replace(temporary, path)
        self._here.add(os.path.basename(path))

    def get(self, job: int) -> Sequence[Scanned]:
        """The result of a job."""
        path = self._path(job)
        data = self._checked(path)
        if data is None:
            raise StorageError(errno.EIO, "what was just written reads back differently", path)
        at = _START + int.from_bytes(data[_START - 8 : _START], "little")
        told = json.loads(data[_START:at])
        arrays = []
        for rows, *_ in told:
            flat = np.frombuffer(data, dtype="<u8", count=rows * self._words, offset=at)
            arrays.append(flat.reshape(rows, self._words))
            at += flat.nbytes
        results = []
        for array, (_, skipped, notes, nbytes) in zip(arrays, told, strict=True):
            results.append(Scanned(array, skipped, notes, data[at : at + nbytes]))
            at += nbytes
        return results
