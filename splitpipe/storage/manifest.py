"""The manifest: the one small JSON file that says what a dataset is.

Responsible for: the JSON form of `Manifest` and `Column`, its checksum, and every check that
can be made without opening another file. A manifest that passes `decode` is
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
import re
from collections.abc import Mapping
from typing import Any, Final

import google_crc32c

from splitpipe.errors import FormatError, UnsupportedVersion
from splitpipe.schema import BARE, Field, checked_name
from splitpipe.storage.catalog_file import CatalogId
from splitpipe.storage.committed import FEATURES, MOST_COMMITS, Column, Manifest, Sealed, Stale
from splitpipe.storage.format import (
    FILE_HEADER_NBYTES,
    FORMAT_NAME,
    FORMAT_VERSION,
    MAX_BINS,
    MAX_ROWS,
)
from splitpipe.storage.layout import BinLayout, Segment

__all__ = ["Column", "Manifest", "Sealed", "Stale", "decode", "encode"]

_STALE_KINDS: Final = ("index", "bins", "deleted", "dictionary", "catalog")
_MOST_COLUMNS: Final = 1 << 16
_CHECKSUM: Final = re.compile("[0-9a-f]{8}")


def encode(manifest: Manifest) -> bytes:
    """The manifest as UTF-8 JSON whose last member is a checksum of everything before it."""
    document: dict[str, Any] = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "requires": manifest.requires,
        "dataset": manifest.dataset.hex(),
        "generation": manifest.generation,
        "volume": manifest.volume,
        "rows": manifest.rows,
        "retired": [list(entry) for entry in manifest.retired],
        "columns": [_encode_column(column) for column in manifest.columns],
    }
    # What has its usual value is left out: plain datasets look as they always did.
    if not manifest.bare:
        document["bare"] = False
    if manifest.next_column != 1:
        document["next_column"] = manifest.next_column
    if manifest.deleted is not None:
        document["deleted"] = _encode_sealed(manifest.deleted)
    if manifest.catalog is not None:
        document["catalog"] = manifest.catalog.to_json()
    if manifest.stale:
        document["stale"] = [[s.kind, s.volume, s.column, s.number] for s in manifest.stale]
    if manifest.note is not None:
        document["note"] = dict(manifest.note)
    body = json.dumps(document, indent=1, ensure_ascii=True)
    head = body[: body.rindex("\n}")].encode("ascii")
    return head + _seal(head)


def _encode_column(column: Column) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": column.name,
        **column.field.to_json(),
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
    for member in ("version", "missing", "dead_nbytes"):
        if value := getattr(column, member):
            document[member] = value
    if column.dictionary is not None:
        document["dictionary"] = _encode_sealed(column.dictionary)
    return document


def _encode_sealed(sealed: Sealed) -> dict[str, Any]:
    return {"number": sealed.number, "nbytes": sealed.nbytes, "crc": f"{sealed.crc:08x}"}


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
    requires = document.get("requires")
    if not isinstance(requires, list) or not all(r in FEATURES for r in requires):
        raise UnsupportedVersion(f"{path} needs {requires!r}, unknown to this splitpipe: update it")
    try:
        return _decode_document(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path} contradicts itself: {error}") from error


def _decode_document(document: Mapping[str, Any]) -> Manifest:
    rows = _integer(document, "rows", MAX_ROWS)
    columns = tuple(_decode_column(entry, rows) for entry in document["columns"])
    dataset = bytes.fromhex(document["dataset"])
    if len(dataset) != 16:
        raise ValueError("dataset must be 32 hexadecimal digits")
    bare = document.get("bare", True)
    names = {column.name for column in columns}
    numbers = {column.number for column in columns}
    next_column = _integer(document, "next_column", _MOST_COLUMNS, usual=1)
    if not columns or len(names) != len(columns) or len(numbers) != len(columns):
        raise ValueError("it has no column, or one twice")
    if type(bare) is not bool or (bare and names != {BARE}):
        raise ValueError("plain values have one column, named data")
    if max(numbers) >= next_column:
        raise ValueError("a column has a number that was not given yet")
    deleted = _decode_sealed(document, "deleted")
    if deleted is not None and not 0 < deleted.nbytes // 8 <= rows:
        raise ValueError("more rows were deleted than there are")
    catalog = document.get("catalog")
    manifest = Manifest(
        dataset=dataset,
        generation=_integer(document, "generation", MOST_COMMITS),
        volume=_integer(document, "volume", MOST_COMMITS),
        rows=rows,
        columns=columns,
        retired=tuple(_decode_retired(entry) for entry in document["retired"]),
        bare=bare,
        next_column=next_column,
        deleted=deleted,
        catalog=None if catalog is None else CatalogId.from_json(catalog),
        stale=tuple(_decode_stale(entry) for entry in document.get("stale", [])),
        note=_decode_note(document.get("note")),
    )
    _check_removals(manifest)
    if not set(manifest.requires) <= set(document["requires"]):
        raise ValueError("it holds more than it says a reader must know")
    return manifest


def _check_removals(manifest: Manifest) -> None:
    """What is to be removed must be nothing that this commit, or a later one, has."""
    versions = {column.number: column.version for column in manifest.columns}
    sealed = {
        "deleted": manifest.deleted and manifest.deleted.number,
        "catalog": manifest.catalog and manifest.catalog.number,
    }
    earlier = all(volume < manifest.volume for volume, _, _ in manifest.retired)
    for entry in manifest.stale:
        if entry.volume != manifest.volume:
            earlier = earlier and entry.volume < manifest.volume
        elif entry.kind == "index":
            earlier = earlier and versions.get(entry.column) != entry.number
        elif entry.kind in sealed:
            earlier = earlier and sealed[entry.kind] != entry.number
        else:
            earlier = earlier and entry.column not in versions
    if not earlier:
        raise ValueError("it lists files to be removed that are its own")


def _decode_note(note: Any) -> Mapping[str, Any] | None:
    if note is not None and not isinstance(note, dict):
        raise ValueError("note must be an object")
    return note


def _decode_sealed(entry: Mapping[str, Any], key: str) -> Sealed | None:
    document = entry.get(key)
    if document is None:
        return None
    crc = document["crc"]
    if type(crc) is not str or not _CHECKSUM.fullmatch(crc):
        raise ValueError(f"{key} must have a checksum of 8 hexadecimal digits")
    number = _integer(document, "number", MOST_COMMITS)
    return Sealed(number, _integer(document, "nbytes"), int(crc, 16))


def _decode_stale(entry: Any) -> Stale:
    kind, *numbers = entry
    if kind not in _STALE_KINDS or len(numbers) != 3:
        raise ValueError("stale must hold [kind, volume, column, number]")
    if not all(type(value) is int and 0 <= value < 1 << 63 for value in numbers):
        raise ValueError("stale must hold integers")
    if kind == "bins" and numbers[2] > 1 << 24:
        raise ValueError("stale names too many bins")
    return Stale(kind, *numbers)


def _decode_retired(entry: Any) -> tuple[int, int, int]:
    volume, column, bins = entry
    if not all(type(value) is int and value >= 0 for value in entry) or bins > 1 << 24:
        raise ValueError("retired must hold [volume, column, bins]")
    return volume, column, bins


def _decode_column(entry: Mapping[str, Any], rows: int) -> Column:
    described = Field.from_json(entry)
    sizes = tuple(entry["bin_sizes"])
    if any(type(size) is not int or not 0 <= size < 1 << 63 for size in sizes):
        raise ValueError("bin_sizes must be sizes in bytes")
    segments: list[Segment] = []
    next_row = next_bin = 0
    for item in entry["segments"]:
        segment = _decode_segment(item)
        # Bins between two segments hold updated records.
        if segment.first_row != next_row or segment.first_bin < next_bin:
            raise ValueError(f"segment {len(segments)} does not follow the one before")
        next_row += segment.rows
        next_bin = segment.first_bin + segment.bins
        segments.append(segment)
    layout = BinLayout(segments)
    if layout.rows != rows or next_bin > len(sizes) or not segments:
        raise ValueError("rows, bins and segments do not add up")
    dealt = {n for s in segments for n in range(s.first_bin, s.first_bin + s.bins)}
    filled = {number for number, _ in layout.numbered_bins()}
    for number, size in enumerate(sizes):
        has_file = size >= FILE_HEADER_NBYTES
        if (size and not has_file) or (number in dealt and has_file != (number in filled)):
            raise ValueError(f"bin {number} cannot have {size} bytes")
    dictionary = _decode_sealed(entry, "dictionary")
    if dictionary is not None and described.compression is None:
        raise ValueError("a column that is not compressed has no dictionary")
    return Column(
        name=checked_name(entry["name"]),
        field=described,
        number=_integer(entry, "number", _MOST_COLUMNS),
        bin_sizes=sizes,
        layout=layout,
        version=_integer(entry, "version", MOST_COMMITS, usual=0),
        missing=_integer(entry, "missing", rows, usual=0),
        dead_nbytes=_integer(entry, "dead_nbytes", usual=0),
        dictionary=dictionary,
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


def _integer(
    entry: Mapping[str, Any], key: str, limit: int = (1 << 63) - 1, usual: int | None = None
) -> int:
    value = entry[key] if usual is None else entry.get(key, usual)
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{key} must be an integer from 0 to {limit}, not {value!r}")
    return value
