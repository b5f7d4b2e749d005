"""WebDataset's tar shards.

Responsible for: `WebDatasetForm`: a column becomes a member of a sample, named by the record's
number and an extension; what decides on the extension, and on the bytes.

| column | member, unless its name ends in an extension that fits, or one was said |
|---|---|
| ``str``, ``json``, ``bytes`` | ``NAME.txt``, ``NAME.json``, ``NAME.bin`` |
| integers | ``NAME.cls``, in digits |
| booleans, floats | ``NAME.json`` |
| arrays, dates, complex numbers | ``NAME.npy`` |
| image, audio, video | ``NAME.jpg``, ... as the first one is |

Rules:
- a missing value is a member that is not there, as WebDataset has it;
- a column ``__key__`` of text, as tar shards are read here, names the samples;
- archives are the same bytes whenever they are written: no times, no owners.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import FormatError
from splitpipe.formats.names import column_names
from splitpipe.formats.shards.tar import KEY, split_name
from splitpipe.integrations.exports.base import Packed, Settings, first_value, media_extension
from splitpipe.integrations.exports.folder import NewFile
from splitpipe.schema import Field, fit
from splitpipe.storage.base import Batch, Values

__all__ = ["WebDatasetForm"]

_BLOCK: Final = 512
_RECORD: Final = 20 * _BLOCK  # what tar pads an archive to
_MEDIA: Final = ("image", "audio", "video")
_DIGITS: Final = ("cls", "cls2", "class", "count", "index", "inx", "id")
_TEXT: Final = ("txt", "text", "transcript")
_KNOWN_MEDIA: Final = (
    *("jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
    *("flac", "mp3", "wav", "ogg", "opus", "m4a", "sox"),
    *("mp4", "avi", "mov", "webm", "mkv", "mjpeg", "mpg", "mpeg", "wmv", "h264", "ogv"),
)
_Pair = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]


class WebDatasetForm:
    """How records become samples of WebDataset.

    Args:
        settings: of the export.

    Raises:
        FormatError: a column cannot be held there, or two would have one extension.
    """

    changed: Mapping[str, str]

    def __init__(self, settings: Settings) -> None:
        if settings.compression not in (None, "none"):
            raise FormatError("shards of WebDataset are not compressed: they are read at random")
        self._limit = settings.shard_nbytes
        schema = settings.schema
        self._keyed = KEY in schema and schema[KEY].kind == "str"
        self._fields = {name: f for name, f in schema.items() if not (self._keyed and name == KEY)}
        if not self._fields:
            raise FormatError(f"there is no column beside {KEY}")
        strange = set(settings.extensions) - set(self._fields)
        if strange:
            raise FormatError(f"extensions= names {min(strange)!r}, which is no column")
        self._extensions = {
            name: _extension(name, field, settings.extensions.get(name), settings.first[name])
            for name, field in self._fields.items()
        }
        if len(set(self._extensions.values())) < len(self._extensions):
            raise FormatError(
                f"two columns have one extension: {self._extensions}; say extensions="
            )
        pairs = {name: _pair(name, f, self._extensions[name]) for name, f in self._fields.items()}
        self._pairs: dict[str, _Pair] = pairs
        self._read_as = {found: name for name, found in self._names_read().items()}
        self.changed = {}

    def _names_read(self) -> dict[str, str]:
        """What a reader calls the columns: name there -> name here."""
        by_extension = {extension: name for name, extension in self._extensions.items()}
        read = column_names([KEY, *sorted(by_extension)])
        return {found: by_extension[given] for found, given in read.items() if given != KEY}

    def pack(self, values: Batch, start: int) -> Packed:
        """See `Form.pack`."""
        count = len(next(iter(values.values())))
        samples = []
        for at in range(count):
            key = f"{start + at:09d}"
            if self._keyed:
                key = _checked_key(values[KEY][at], start + at)
            samples.append(self._sample(key, values, at, start + at))
        return Packed(count, samples)

    def _sample(self, key: str, values: Batch, at: int, row: int) -> bytes:
        parts = []
        for name, (encode, _) in self._pairs.items():
            value = values[name][at]
            if value is None:
                continue
            try:
                data = encode(value)
            except FormatError as error:
                raise FormatError(f"column {name!r} of record {row}: {error}") from error
            parts += _member(f"{key}.{self._extensions[name]}", data)
        if not parts:
            raise FormatError(f"record {row} has no value at all: a tar archive cannot hold it")
        return b"".join(parts)

    def sink(self, folder: str) -> TarSink:
        """See `Form.sink`."""
        return TarSink(folder, self._limit)

    def opened(self, folder: str, scratch: str) -> Dataset:
        """See `Form.opened`."""
        return open_dataset(folder, format="tar", index_dir=scratch)

    def columns(self, names: Sequence[str]) -> Sequence[str]:
        """See `Form.columns`."""
        return [self._read_as.get(name, KEY) for name in names]

    def restored(self, name: str, copy: Batch) -> Values:
        """See `Form.restored`."""
        if name not in self._read_as:
            return copy[KEY]
        decode, count = self._pairs[name][1], len(next(iter(copy.values())))
        # A column without a single value has left nothing behind.
        stored = copy.get(self._read_as[name], [None] * count)
        return [None if data is None else decode(data) for data in stored]


class TarSink:
    """Writes archives, one behind the other.

    Args:
        folder: to write into.
        limit: bytes after which another one begins.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._file: NewFile | None = None
        self._count = 0

    def add(self, packed: Packed) -> None:
        """See `Sink.add`."""
        for sample in packed.data:
            if self._file is not None and self._file.size + len(sample) > self._limit:
                self._end()
            if self._file is None:
                name = f"shard-{self._count:06d}.tar"
                self._file = NewFile(os.path.join(self._folder, name))
                self._count += 1
            self._file.write(sample)

    def _end(self) -> None:
        if self._file is not None:
            left = -(self._file.size + 2 * _BLOCK) % _RECORD
            self._file.write(bytes(2 * _BLOCK + left))
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """See `Sink.finish`."""
        self._end()

    def close(self) -> None:
        """See `Sink.close`."""
        if self._file is not None:
            self._file.close(durable=False)


def _member(name: str, data: bytes) -> list[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o444
    head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return [head, data, bytes(-len(data) % _BLOCK)]


def _checked_key(key: Any, row: int) -> str:
    if not isinstance(key, str) or split_name(f"{key}.x") != (key, "x") or "\0" in key:
        raise FormatError(
            f"record {row} has the key {key!r}, which cannot name the members of a sample: no dot "
            "in its last part, not empty, nothing hidden"
        )
    return key


# -- extensions -----------------------------------------------------------------------------------


def _extension(name: str, field: Field, said: str | None, values: Values) -> str:
    if said is not None:
        if split_name(f"key.{said}") != ("key", said):
            raise FormatError(f"{said!r} cannot be an extension: lower case, and no slash")
        return said
    lower = name.lower()
    last = lower.rpartition("_")[2]
    if _fits(field, last):
        return lower.removesuffix(f"_{last}") + f".{last}" if lower != last else last
    return f"{lower}.{_usual(field, first_value(values))}"


def _fits(field: Field, extension: str) -> bool:
    """Whether readers would take a column of such a name for what it is."""
    if field.kind == "bytes" or field.kind in _MEDIA:
        return extension in _KNOWN_MEDIA or (field.kind == "bytes" and _is_known(extension))
    return extension in _usual_ones(field)


def _is_known(extension: str) -> bool:
    return extension in (*_TEXT, *_DIGITS, "json", "npy", "bin")


def _usual_ones(field: Field) -> Sequence[str]:
    if field.kind == "str":
        return _TEXT
    if field.kind == "json":
        return ("json", "jsn")
    if field.kind == "scalar" and field.numpy_dtype.kind in "iu":
        return _DIGITS
    if field.kind == "scalar" and field.numpy_dtype.kind in "bf":
        return ("json",)
    return ("npy",) if field.kind in ("scalar", "ndarray") else ("bin",)


def _usual(field: Field, first: Any) -> str:
    if field.kind in _MEDIA and isinstance(first, bytes):
        return media_extension(first) or "bin"
    return _usual_ones(field)[0]


# -- bytes ----------------------------------------------------------------------------------------


def _pair(name: str, field: Field, extension: str) -> _Pair:
    """How a value becomes the bytes of a member, and comes back."""
    last = extension.rpartition(".")[2]
    if field.kind == "pickle":
        raise FormatError(f"column {name!r} holds pickled values, which are not handed on")
    if field.kind in ("bytes", *_MEDIA):
        return _Raw(extension if field.kind in _MEDIA else None), bytes
    if field.kind == "str":
        return _Fitted(field), bytes.decode
    if field.kind == "json":
        return _Fitted(field), json.loads
    kind = field.numpy_dtype.kind
    if last == "npy" or field.kind == "ndarray" or kind not in "biuf":
        if last != "npy":
            raise FormatError(f"column {name!r} needs an extension that ends in npy")
        return _npy, _from_npy
    return _digits if kind in "iu" else _json_number, _Number(field)


class _Raw:
    """Bytes as they are; images of one column are of one kind."""

    def __init__(self, extension: str | None) -> None:
        last = (extension or "").rpartition(".")[2]
        self._kind = last if last in ("jpg", "png", "wav", "flac", "gif", "webp") else None

    def __call__(self, value: Any) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise FormatError("it is decoded: open the source without decode=True")
        data = bytes(value)
        if self._kind is not None and media_extension(data) != self._kind:
            raise FormatError(
                f"it is no {self._kind}, as the first one is: say extensions={{...: 'image.bin'}} "
                "if the column holds several kinds"
            )
        return data


class _Fitted:
    """Text and JSON."""

    def __init__(self, field: Field) -> None:
        self._field = field

    def __call__(self, value: Any) -> bytes:
        return bytes(fit(self._field, value))


class _Number:
    """Numbers out of text."""

    def __init__(self, field: Field) -> None:
        self._field = field

    def __call__(self, data: bytes) -> Any:
        return self._field.numpy_dtype.type(json.loads(data))


def _digits(value: Any) -> bytes:
    return b"%d" % int(value)


def _json_number(value: Any) -> bytes:
    return json.dumps(value.item() if isinstance(value, np.generic) else value).encode()


def _npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(value), allow_pickle=False)
    return file.getvalue()


def _from_npy(data: bytes) -> Any:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    return array if array.ndim else array[()]
