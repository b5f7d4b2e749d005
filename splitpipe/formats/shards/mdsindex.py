"""The index of an MDS folder: which shards there are, and what each is.

Responsible for: reading ``index.json`` into `Shard` values, and the columns that all of them have.

Rules:
- what is not of the expected type is refused by name, before any shard is looked at;
- a shard lies inside of the folder: paths that lead out of it are refused;
- all shards have the same columns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splitpipe.errors import FormatError
from splitpipe.storage import files

__all__ = ["INDEX", "Columns", "Shard", "read_index"]

INDEX = "index.json"
_INDEX_NBYTES_LIMIT = 1 << 30
_SHARD_NBYTES_LIMIT = 1 << 32  # offsets have 32 bits
_VERSION = 2

# Name and encoding of every column, in stored order.
Columns = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the index describes it.

    Attributes:
        samples: how many it has.
        path: of the raw file.
        nbytes: its size.
        hashes: algorithm -> digest of the raw file.
        packed_path: of the packed file; empty if there is none.
        packed_nbytes: its size.
        compression: its algorithm.
    """

    samples: int
    path: str
    nbytes: int
    hashes: Mapping[str, str]
    packed_path: str = ""
    packed_nbytes: int = 0
    compression: str = ""


def read_index(path: str) -> tuple[list[Shard], Columns]:
    """The shards of an index, and the columns of their samples.

    Raises:
        FormatError: it is damaged, of another version, or its shards differ in their columns.
        StorageError: it is not there or cannot be read.
    """
    data = files.read_whole(path, limit=_INDEX_NBYTES_LIMIT)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON: it was cut or is damaged; copy it again") from error
    listed = _get(document, "shards", list, path)
    if document.get("version") != _VERSION:
        raise FormatError(f"{path} is of version {document.get('version')!r}; {_VERSION} is read")
    shards: list[Shard] = []
    columns: Columns = []
    for number, told in enumerate(listed):
        where = f"shard {number} of {path}"
        if _get(told, "format", str, where) != "mds":
            raise FormatError(f"{where} is of the format {told['format']!r}, not mds")
        found = _columns(told, where)
        if number and found != columns:
            raise FormatError(f"{where} has other columns than shard 0: {found}, not {columns}")
        columns = found
        shards.append(_shard(told, os.path.dirname(path), where))
    return shards, columns


def _shard(told: dict[str, Any], root: str, where: str) -> Shard:
    raw = _get(told, "raw_data", dict, where)
    samples = _count(told, "samples", where)
    nbytes = _count(raw, "bytes", where)
    # Four bytes of the table for each sample: more samples than that are a lie.
    if nbytes >= _SHARD_NBYTES_LIMIT or 4 * samples > nbytes:
        raise FormatError(f"{where} says {samples} samples in {nbytes} bytes, which cannot be")
    hashes = raw.get("hashes") or {}
    if not isinstance(hashes, dict) or not all(isinstance(h, str) for h in hashes.values()):
        raise FormatError(f"{where} has hashes that are none: {hashes!r:.100}")
    path = _inside(root, _get(raw, "basename", str, where), where)
    packed = told.get("zip_data")
    if packed is None:
        return Shard(samples, path, nbytes, hashes)
    if not isinstance(packed, dict):
        raise FormatError(f"{where} has no description of its packed file")
    return Shard(
        samples,
        path,
        nbytes,
        hashes,
        _inside(root, _get(packed, "basename", str, where), where),
        _count(packed, "bytes", where),
        _get(told, "compression", str, where),
    )


def _columns(told: dict[str, Any], where: str) -> Columns:
    names = _get(told, "column_names", list, where)
    encodings = _get(told, "column_encodings", list, where)
    good = len(names) == len(encodings) == len(set(map(str, names))) and names
    if not good or not all(isinstance(text, str) for text in (*names, *encodings)):
        raise FormatError(f"{where} has column names and encodings that do not go together")
    return list(zip(names, encodings, strict=True))


def _inside(root: str, name: str, where: str) -> str:
    path = os.path.normpath(os.path.join(root, name))
    if not name or "\0" in name or os.path.commonpath([root, path]) != root or path == root:
        raise FormatError(f"{where} names the file {name!r:.200}, which is not in its folder")
    return path


def _get(told: Any, key: str, kind: type, where: str) -> Any:
    value = told.get(key) if isinstance(told, dict) else None
    if not isinstance(value, kind):
        raise FormatError(f"{where} has no {key!r} that is a {kind.__name__}: it is damaged")
    return value


def _count(told: dict[str, Any], key: str, where: str) -> int:
    value = told.get(key)
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise FormatError(f"{where} has no {key!r} that is a size: {value!r:.100}")
    return value
