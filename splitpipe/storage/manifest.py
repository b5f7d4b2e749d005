"""The manifest: the one small JSON file that says what a dataset is.

Responsible for: `Manifest` and `Column` as values, their JSON form, its checksum, and every
check that can be made without opening another file. A manifest that passes `decode` is
consistent with itself, so nothing later needs to defend against it.

Rules:
- replaced whole, by rename; the rename is the commit (see ``files.replace``);
- names no file by a string: names follow from integers (``format.file_name``);
- a newer version, or a feature this version does not know, is ``UnsupportedVersion``;
- whatever the bytes are, decoding ends in a `Manifest` or a ``FormatError``, without
  allocating more than a few times their size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import google_crc32c

from splitpipe.errors import FormatError, UnsupportedVersion
from splitpipe.storage.format import (
    FILE_HEADER_NBYTES,
    FORMAT_NAME,
    FORMAT_VERSION,
    MAX_BINS,
    MAX_ROWS,
    FileId,
)
from splitpipe.storage.layout import BinLayout, Segment

__all__ = ["Column", "Manifest", "decode", "encode"]


@dataclass(frozen=True, slots=True)
class Column:
    """One stored column.

    Attributes:
        name: as the user knows it.
        type: what its values are; this version knows ``"bytes"``.
        number: its number in file names and checksums.
        bin_sizes: committed size of every bin file in bytes, 0 for a bin without a file.
        layout: which rows lie in which bin.
    """

    name: str
    type: str
    number: int
    bin_sizes: tuple[int, ...]
    layout: BinLayout


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one commit made of a dataset.

    Attributes:
        dataset: 16 random bytes, new whenever the dataset is overwritten.
        generation: counts commits, from 0 (just created, nothing written).
        volume: counts overwritings, from 1; part of every file's name.
        rows: number of records.
        columns: the stored columns, at least one.
        retired: ``(volume, column, bins)`` of overwritten files that a reader may still hold.
    """

    dataset: bytes
    generation: int
    volume: int
    rows: int
    columns: tuple[Column, ...]
    retired: tuple[tuple[int, int, int], ...] = field(default=())

    def pinned(self, generation: int) -> Manifest:
        """The same files, as an earlier commit that a reader holds on to."""
        return replace(self, generation=generation)

    def file_id(self, kind: str, column: Column, number: int = 0) -> FileId:
        """Identity of one of the dataset's files."""
        return FileId(kind, self.dataset, self.volume, column.number, number)

    def index_size(self, column: Column) -> int:
        """Committed size of a column's index file in bytes."""
        return FILE_HEADER_NBYTES + column.layout.index_nbytes()

    def sums_size(self, column: Column) -> int:
        """Committed size of a column's sums file in bytes."""
        return FILE_HEADER_NBYTES + column.layout.sums_nbytes()


def encode(manifest: Manifest) -> bytes:
    """The manifest as UTF-8 JSON whose last member is a checksum of everything before it."""
    document = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "requires": [],
        "dataset": manifest.dataset.hex(),
        "generation": manifest.generation,
        "volume": manifest.volume,
        "rows": manifest.rows,
        "retired": [list(entry) for entry in manifest.retired],
        "columns": [_encode_column(column) for column in manifest.columns],
    }
    body = json.dumps(document, indent=1, ensure_ascii=True)
    head = body[: body.rindex("\n}")].encode("ascii")
    return head + _seal(head)


def _encode_column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "number": column.number,
        "bin_sizes": list(column.bin_sizes),
        "segments": [
            {
                "first_row": segment.first_row,
                "rows": segment.rows,
                "first_bin": segment.first_bin,
                "bins": segment.bins,
                "dealing": None if segment.dealing is None else list(segment.dealing),
                "tail": segment.tail.hex(),
            }
            for segment in column.layout.segments
        ],
    }


def _seal(head: bytes) -> bytes:
    return b',\n "checksum": "%08x"\n}\n' % google_crc32c.value(head)


_SEAL_NBYTES = len(_seal(b""))


def decode(raw: bytes, path: str) -> Manifest:
    """Read a manifest.

    Args:
        raw: the whole file.
        path: where it lies, for messages.

    Raises:
        UnsupportedVersion: a newer splitpipe wrote it.
        FormatError: it is damaged, or no manifest of splitpipe.
    """
    intact = raw[-_SEAL_NBYTES:] == _seal(raw[:-_SEAL_NBYTES])
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT_NAME:
        raise FormatError(f"{path} is not the manifest of a splitpipe dataset, or is damaged")
    version = document.get("version")
    if type(version) is int and version > FORMAT_VERSION:
        raise UnsupportedVersion(
            f"{path} was written in format version {version}, this splitpipe reads up to "
            f"{FORMAT_VERSION}: update splitpipe"
        )
    if not intact or version != FORMAT_VERSION:
        raise FormatError(
            f"{path} does not match its own checksum: restore it from a copy; "
            "the records themselves lie in the bins and are not touched by this"
        )
    if document.get("requires") != []:
        raise UnsupportedVersion(
            f"{path} needs {document.get('requires')!r}, unknown to this splitpipe: update it"
        )
    try:
        return _decode_document(document)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} contradicts itself: {error}") from error


def _decode_document(document: Mapping[str, Any]) -> Manifest:
    rows = _integer(document, "rows", MAX_ROWS)
    columns = tuple(_decode_column(entry, rows) for entry in document["columns"])
    if not columns:
        raise ValueError("it has no column")
    dataset = bytes.fromhex(document["dataset"])
    if len(dataset) != 16:
        raise ValueError("dataset must be 32 hexadecimal digits")
    return Manifest(
        dataset=dataset,
        generation=_integer(document, "generation"),
        volume=_integer(document, "volume"),
        rows=rows,
        columns=columns,
        retired=tuple(_decode_retired(entry) for entry in document["retired"]),
    )


def _decode_retired(entry: Any) -> tuple[int, int, int]:
    volume, column, bins = entry
    if not all(type(value) is int and value >= 0 for value in entry) or bins > 1 << 24:
        raise ValueError("retired must hold [volume, column, bins]")
    return volume, column, bins


def _decode_column(entry: Mapping[str, Any], rows: int) -> Column:
    if entry["type"] != "bytes":
        raise ValueError(f"column type {entry['type']!r} is unknown")
    sizes = tuple(entry["bin_sizes"])
    if any(type(size) is not int or not 0 <= size < 1 << 63 for size in sizes):
        raise ValueError("bin_sizes must be sizes in bytes")
    segments: list[Segment] = []
    next_row = next_bin = 0
    for item in entry["segments"]:
        segment = _decode_segment(item)
        if (segment.first_row, segment.first_bin) != (next_row, next_bin):
            raise ValueError(f"segment {len(segments)} does not follow the one before")
        next_row += segment.rows
        next_bin += segment.bins
        segments.append(segment)
    layout = BinLayout(segments)
    if layout.rows != rows or next_bin != len(sizes):
        raise ValueError("rows, bins and segments do not add up")
    filled = {number for number, _ in layout.numbered_bins()}
    for number, size in enumerate(sizes):
        if (size >= FILE_HEADER_NBYTES) != (number in filled):
            raise ValueError(f"bin {number} cannot have {size} bytes")
    return Column(
        name=str(entry["name"]),
        type="bytes",
        number=_integer(entry, "number", 1 << 16),
        bin_sizes=sizes,
        layout=layout,
    )


def _decode_segment(item: Mapping[str, Any]) -> Segment:
    bins = _integer(item, "bins", MAX_BINS)
    dealing = item["dealing"]
    if dealing is not None:
        dealing = tuple(dealing)
        if len(dealing) != bins or sorted(dealing) != list(range(bins)):
            raise ValueError("dealing must name every bin of its segment once")
    segment = Segment(
        first_row=_integer(item, "first_row", MAX_ROWS),
        rows=_integer(item, "rows", MAX_ROWS),
        first_bin=_integer(item, "first_bin"),
        bins=bins,
        dealing=dealing,
        tail=bytes.fromhex(item["tail"]),
    )
    if bins < 1 or len(segment.tail) != segment.tail_nbytes:
        raise ValueError("a segment's bins or tail do not fit its rows")
    return segment


def _integer(entry: Mapping[str, Any], key: str, limit: int = (1 << 63) - 1) -> int:
    value = entry[key]
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{key} must be an integer from 0 to {limit}, not {value!r}")
    return value
