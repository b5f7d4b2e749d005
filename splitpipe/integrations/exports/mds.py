"""MDS shards, as MosaicML's streaming writes and reads them.

Responsible for: `MdsForm`. The bytes are those of ``streaming/base/format/mds`` of 0.13, as
``splitpipe.formats.shards.mds`` reads them.

| column | encoding |
|---|---|
| ``int64`` | ``int``; other numbers are called alike |
| ``bool``; dates and durations | ``uint8``; ``int64`` of their unit |
| arrays | ``ndarray:DTYPE:SHAPE``, or ``ndarray:DTYPE`` where axes are free |
| ``image`` | ``jpeg`` or ``png``, as the first one is; others ``bytes`` |
| ``str``, ``json``, ``bytes``; sound and video | called alike; ``bytes`` |

MDS has no missing values (but JSON's null), no complex numbers, no arrays without an element: they
are refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import FormatError
from splitpipe.integrations.exports.base import Packed, Settings, first_value, media_extension
from splitpipe.integrations.exports.folder import NewFile
from splitpipe.integrations.extras import imported
from splitpipe.schema import Field, fit
from splitpipe.storage import files
from splitpipe.storage.base import Batch, Values

__all__ = ["MdsForm"]

_NUMBERS: Final = (
    *("uint8", "int8", "uint16", "int16", "float16", "uint32"),
    *("int32", "float32", "uint64", "int64", "float64"),
)
_SHARD_LIMIT: Final = (1 << 32) - 1  # offsets have 32 bits
_IMAGES: Final = {"jpg": "jpeg", "png": "png"}


class MdsForm:
    """How records become samples of MDS.

    Args:
        settings: of the export.

    Raises:
        FormatError: a column cannot be held by MDS.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.compression not in (None, "none", "zstd"):
            raise FormatError(f"MDS is written with zstd or none, not {settings.compression!r}")
        if settings.extensions:
            raise FormatError("columns of MDS have no extensions")
        self._zstd = settings.compression == "zstd"
        self._limit = settings.shard_nbytes
        self._fields = dict(settings.schema)
        self._encodings = {
            name: _encoding(name, field, first_value(settings.first[name]))
            for name, field in settings.schema.items()
        }
        self._names = sorted(self._fields)
        self.changed: Mapping[str, str] = {
            name: encoding
            for name, encoding in self._encodings.items()
            if _is_changed(self._fields[name], encoding)
        }

    def pack(self, values: Batch, start: int) -> Packed:
        """See `Form.pack`."""
        columns = []
        for name in self._names:
            stored: list[bytes] = []
            try:
                stored.extend(self._stored(name, value) for value in values[name])
            except FormatError as error:
                raise FormatError(
                    f"column {name!r} of record {start + len(stored)}: {error}"
                ) from error
            columns.append(stored)
        sized = [size_of(self._encodings[name]) is None for name in self._names]
        samples = []
        for parts in zip(*columns, strict=True):
            sizes = [len(part) for part, told in zip(parts, sized, strict=True) if told]
            samples.append(np.array(sizes, "<u4").tobytes() + b"".join(parts))
        return Packed(len(samples), samples)

    def _stored(self, name: str, value: Any) -> bytes:
        field, encoding = self._fields[name], self._encodings[name]
        if value is None and field.kind != "json":
            raise FormatError(
                "it has no value, and MDS has no missing ones: leave such records out"
            )
        if field.kind in ("image", "audio", "video"):
            return _media(value, encoding)
        data = fit(field, value)
        if field.kind not in ("scalar", "ndarray"):
            return bytes(data)
        array = data
        if array.size == 0:
            raise FormatError("it is an array without an element, which MDS does not have")
        return _head(array.shape, encoding) + bytes(array.tobytes())

    def sink(self, folder: str) -> MdsSink:
        """See `Form.sink`."""
        encodings = [self._encodings[name] for name in self._names]
        config = {
            "version": 2,
            "format": "mds",
            "compression": "zstd" if self._zstd else None,
            "hashes": [],
            "size_limit": self._limit,
            "column_names": self._names,
            "column_encodings": encodings,
            "column_sizes": [size_of(encoding) for encoding in encodings],
        }
        return MdsSink(folder, config, self._limit)

    def opened(self, folder: str, scratch: str) -> Dataset:
        """See `Form.opened`."""
        del scratch
        return open_dataset(folder, format="mds")

    def columns(self, names: Sequence[str]) -> Sequence[str]:
        """See `Form.columns`."""
        return names

    def restored(self, name: str, copy: Batch) -> Values:
        """See `Form.restored`."""
        field, values = self._fields[name], copy[name]
        if field.kind not in ("scalar", "ndarray") or name not in self.changed:
            return values
        dtype = field.numpy_dtype
        if isinstance(values, np.ndarray):
            return values.view(dtype)
        return [np.asarray(value).view(dtype) for value in values]


class MdsSink:
    """Writes shards and the index.

    Args:
        folder: to write into.
        config: what each shard says of itself.
        limit: bytes after which another shard begins.
    """

    def __init__(self, folder: str, config: Mapping[str, Any], limit: int) -> None:
        self._folder = folder
        self._config = dict(config)
        self._head = json.dumps(self._config, sort_keys=True).encode()
        self._limit = min(limit, _SHARD_LIMIT)
        self._samples: list[bytes] = []
        self._nbytes = self._empty = 8 + len(self._head)
        self._shards: list[dict[str, Any]] = []

    def add(self, packed: Packed) -> None:
        """See `Sink.add`."""
        for sample in packed.data:
            if self._samples and self._nbytes + 4 + len(sample) > self._limit:
                self._flush()
            if self._empty + 4 + len(sample) > _SHARD_LIMIT:
                raise FormatError(f"a sample of {len(sample)} bytes is too large for MDS")
            self._samples.append(sample)
            self._nbytes += 4 + len(sample)

    def _flush(self) -> None:
        offsets = np.cumsum([0, *map(len, self._samples)], dtype=np.int64)
        offsets += 4 + 4 * len(offsets) + len(self._head)
        table = np.uint32(len(self._samples)).tobytes() + offsets.astype("<u4").tobytes()
        raw = b"".join((table, self._head, *self._samples))
        name = f"shard.{len(self._shards):05}.mds"
        told = {"basename": name, "bytes": len(raw), "hashes": {}}
        packed = None
        if self._config["compression"]:
            data = _zstd(raw)
            packed = {"basename": f"{name}.zstd", "bytes": len(data), "hashes": {}}
            name, raw = f"{name}.zstd", data
        self._write(name, raw)
        self._shards.append(
            {**self._config, "samples": len(self._samples), "raw_data": told, "zip_data": packed}
        )
        self._samples, self._nbytes = [], self._empty

    def _write(self, name: str, data: bytes) -> None:
        file = NewFile(os.path.join(self._folder, name))
        try:
            file.write(data)
        except BaseException:
            file.close(durable=False)
            raise
        file.close()

    def finish(self) -> None:
        """See `Sink.finish`."""
        if self._samples:
            self._flush()
        index = json.dumps({"version": 2, "shards": self._shards}, sort_keys=True)
        files.replace(os.path.join(self._folder, "index.json"), index.encode())

    def close(self) -> None:
        """See `Sink.close`; no file stays open."""


# -- encodings ------------------------------------------------------------------------------------


def _encoding(name: str, field: Field, first: Any) -> str:
    if field.kind in ("str", "json", "bytes"):
        return field.kind
    if field.kind in ("audio", "video"):
        return "bytes"
    if field.kind == "image":
        found = media_extension(first) if isinstance(first, bytes) else None
        return _IMAGES.get(found or "", "bytes")
    kept = _number(field)
    if field.kind == "pickle" or kept is None:
        raise FormatError(
            f"column {name!r} is of {field.dtype or 'pickled values'}, which MDS lacks"
        )
    if field.kind == "scalar":
        return "int" if kept == "int64" else kept
    axes = field.shape
    if axes is None or not axes or not all(axes):  # any, no or free axes, or one of 0
        return f"ndarray:{kept}"
    return f"ndarray:{kept}:{','.join(map(str, axes))}"


def _number(field: Field) -> str | None:
    """The name of the numbers that an element is stored as."""
    if field.kind not in ("scalar", "ndarray"):
        return None
    kind = field.numpy_dtype.kind
    name = {"b": "uint8", "m": "int64", "M": "int64"}.get(kind, str(field.dtype))
    return name if name in _NUMBERS else None


def _is_changed(field: Field, encoding: str) -> bool:
    if field.kind in ("scalar", "ndarray"):
        return _number(field) != field.dtype
    return field.kind in ("image", "audio", "video") and encoding == "bytes"


def size_of(encoding: str) -> int | None:
    """Bytes of every value of an encoding, ``None`` if they differ.

    Example:
        >>> size_of("int"), size_of("ndarray:int16:2,3"), size_of("ndarray:int16"), size_of("str")
        (8, 12, None, None)
    """
    parts = encoding.split(":")
    if parts[0] == "ndarray":
        if len(parts) < 3:
            return None
        count = int(np.prod([int(axis) for axis in parts[2].split(",")]))
        return count * np.dtype(parts[1]).itemsize
    if encoding == "int":
        return 8
    return np.dtype(encoding).itemsize if encoding in _NUMBERS else None


def _head(shape: tuple[int, ...], encoding: str) -> bytes:
    """The shape of an array, where the encoding does not say it."""
    if encoding.count(":") != 1:
        return b""
    if not shape:
        raise FormatError("it is an array without axes, which MDS does not have")
    for code, dtype in enumerate(("<u1", "<u2", "<u4", "<u8")):
        if max(shape) <= np.iinfo(dtype).max:
            return bytes([len(shape) << 2 | code]) + np.array(shape, dtype).tobytes()
    raise AssertionError("no axis is longer")


def _zstd(raw: bytes) -> bytes:
    found = imported("zstandard", extra="zstd", by="compression of shards")
    data: bytes = found.compress(raw)
    return data


def _media(value: Any, encoding: str) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise FormatError("it is decoded: open the source without decode=True")
    data = bytes(value)
    if encoding != "bytes" and _IMAGES.get(media_extension(data) or "") != encoding:
        raise FormatError(
            f"it is no {encoding}, as the first image is, and a column of MDS holds images of one "
            "kind: read it as bytes, by a column of that type"
        )
    return data
