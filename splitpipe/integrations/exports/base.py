"""The seam of an export: how records become files of a format, and come back out of them.

Responsible for: `Form`, what a format says of a column and of a block of records; `Sink`, which
writes; and what forms share: telling an encoded image, sound or video by its first bytes.

Rules:
- a form is a value that travels to workers; only a sink has files;
- ``restored`` is the inverse of what was written, so that the proof compares what was read with
  what was there, not with what was meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from splitpipe.dataset import Dataset
from splitpipe.schema import Schema
from splitpipe.storage.base import Batch, Values

__all__ = ["Form", "Packed", "Settings", "Sink", "first_value", "media_extension"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a form is made of.

    Attributes:
        schema: of the records.
        first: the first records, column by column, which may tell what a column holds.
        compression: ``None`` for what the format has of its own.
        extensions: column -> extension of its files, where the format has such.
        shard_nbytes: about how large a file becomes.
    """

    schema: Schema
    first: Batch
    compression: str | None
    extensions: Mapping[str, str]
    shard_nbytes: int


@dataclass(frozen=True, slots=True)
class Packed:
    """Consecutive records as a sink takes them.

    Attributes:
        count: how many there are.
        data: what the sink of the same form understands.
    """

    count: int
    data: Any


class Sink(Protocol):
    """Writes the files of an export."""

    def add(self, packed: Packed) -> None:
        """Write the records that follow."""

    def finish(self) -> None:
        """Write what comes last; everything is durable then."""

    def close(self) -> None:
        """Let go of open files, also in the middle; a second call does nothing."""


class Form(Protocol):
    """A format, for the columns of one dataset.

    Attributes:
        changed: column -> what it is in the format, where that has no such type.
    """

    changed: Mapping[str, str]

    def pack(self, values: Batch, start: int) -> Packed:
        """Records as they are written; `start` is the number of the first.

        Raises:
            FormatError: a value cannot be held there; the message names record and column.
        """

    def sink(self, folder: str) -> Sink:
        """What writes into a folder."""

    def opened(self, folder: str, scratch: str) -> Dataset:
        """What was written, as a reader sees it; `scratch` is a folder for indices."""

    def restored(self, name: str, copy: Batch) -> Values:
        """The values of a column out of what was read."""

    def columns(self, names: Sequence[str]) -> Sequence[str]:
        """The columns of what was written that hold these."""


_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"),
    (b"\x1aE\xdf\xa3", "mkv"),
)
_IN_RIFF = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}


def media_extension(data: bytes) -> str | None:
    """The usual extension of an encoded image, sound or video, or ``None`` if it is not known.

    Example:
        >>> media_extension(b"RIFF....WAVEfmt "), media_extension(b"words")
        ('wav', None)
    """
    if data[:4] == b"RIFF":
        return _IN_RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return "mp4"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def first_value(values: Values) -> Any:
    """The first value that is there, or ``None``."""
    return next((value for value in values if value is not None), None)
