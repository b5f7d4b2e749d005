"""Parquet files, and folders that Hugging Face's ``load_from_disk`` reads.

Responsible for: `ParquetForm` and `HuggingFaceForm`. Columns are those of
`splitpipe.integrations.arrow`, our own types noted in the files; images, sound and video are
features of Hugging Face's library there. Needs the extra ``table`` (pyarrow).
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import FormatError
from splitpipe.integrations.arrow import arrow_array, arrow_schema
from splitpipe.integrations.exports.base import Packed, Settings
from splitpipe.integrations.exports.folder import NewFile
from splitpipe.schema import Field
from splitpipe.storage import files
from splitpipe.storage.base import Batch, Values

__all__ = ["HuggingFaceForm", "ParquetForm"]

_MEDIA: Final = {"image": "Image", "audio": "Audio", "video": "Video"}
_CODECS: Final = ("zstd", "snappy", "gzip", "brotli", "lz4", "none")
# The first version that writes and reads missing arrays of one shape.
_MISSING_ARRAYS: Final = 26
_VALUES: Final = {"halffloat": "float16", "float": "float32", "double": "float64"}


class _Columnar:
    """What both have in common.

    Args:
        settings: of the export.

    Raises:
        FormatError: Arrow has no type for a column.
    """

    format = ""

    def __init__(self, settings: Settings) -> None:
        if settings.extensions:
            raise FormatError("columns of tables have no extensions")
        for name, field in settings.schema.items():
            if field.kind == "pickle":
                raise FormatError(f"column {name!r} holds pickled values, which are not handed on")
        self._fields = dict(settings.schema)
        self._limit = settings.shard_nbytes
        self._schema = arrow_schema(settings.schema, tuple(settings.schema))
        self.changed: Mapping[str, str] = {}

    def pack(self, values: Batch, start: int) -> Packed:
        """See `Form.pack`."""
        pa = import_module("pyarrow")
        arrays = []
        for name, field in self._fields.items():
            try:
                arrays.append(self._array(field, values[name]))
            except (FormatError, pa.ArrowException, ValueError, TypeError) as error:
                last = start + len(values[name]) - 1
                where = f"column {name!r} of records {start} to {last}"
                raise FormatError(f"{where}: {error}") from error
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        return Packed(batch.num_rows, batch)

    def _array(self, field: Field, values: Values) -> Any:
        return arrow_array(field, values)

    def opened(self, folder: str, scratch: str) -> Dataset:
        """See `Form.opened`."""
        del scratch
        return open_dataset(folder, format=self.format)

    def columns(self, names: Sequence[str]) -> Sequence[str]:
        """See `Form.columns`."""
        return names

    def restored(self, name: str, copy: Batch) -> Values:
        """See `Form.restored`."""
        return copy[name]


class ParquetForm(_Columnar):
    """How records become rows of Parquet files: about as many row groups as blocks are read."""

    format = "parquet"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._codec = settings.compression or "zstd"
        if self._codec not in _CODECS:
            raise FormatError(f"Parquet is compressed by {', '.join(_CODECS)}, not {self._codec!r}")

    def _array(self, field: Field, values: Values) -> Any:
        array, pyarrow = arrow_array(field, values), import_module("pyarrow")
        old = int(pyarrow.__version__.partition(".")[0]) < _MISSING_ARRAYS
        if old and array.null_count and pyarrow.types.is_fixed_size_list(array.type):
            raise FormatError(
                f"missing arrays come through Parquet from pyarrow {_MISSING_ARRAYS} on, this is "
                f"{pyarrow.__version__}: take a newer one, or export to hf"
            )
        return array

    def sink(self, folder: str) -> ParquetSink:
        """See `Form.sink`."""
        return ParquetSink(folder, self._schema, self._codec, self._limit)


class ParquetSink:
    """Writes Parquet files.

    Args:
        folder: to write into.
        schema: of the rows.
        codec: how pages are compressed.
        limit: bytes after which another file begins.
    """

    def __init__(self, folder: str, schema: Any, codec: str, limit: int) -> None:
        self._parquet = import_module("pyarrow.parquet")
        self._folder, self._schema, self._codec, self._limit = folder, schema, codec, limit
        self._writer: Any = None
        self._file: Any = None
        self._count = 0

    def add(self, packed: Packed) -> None:
        """See `Sink.add`."""
        if self._writer is not None and self._file.tell() + packed.data.nbytes > self._limit:
            self.finish()
        if self._writer is None:
            path = os.path.join(self._folder, f"part-{self._count:05d}.parquet")
            self._count += 1
            with files.translated("create a file", path):
                self._file = open(path, "xb")  # noqa: SIM115  it is closed by finish and by close
            self._writer = self._parquet.ParquetWriter(
                self._file, self._schema, compression=self._codec, write_page_checksum=True
            )
        with files.translated("write", self._file.name):
            self._writer.write_batch(packed.data)

    def finish(self) -> None:
        """See `Sink.finish`."""
        if self._writer is None:
            return
        with files.translated("write", self._file.name):
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self._writer = self._file = None

    def close(self) -> None:
        """See `Sink.close`."""
        if self._file is not None:
            self._file.close()


class HuggingFaceForm(_Columnar):
    """How records become a folder of ``save_to_disk``."""

    format = "arrow"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        if settings.compression not in (None, "none"):
            raise FormatError("Hugging Face's files are mapped: they are not compressed")
        pa = import_module("pyarrow")
        media = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        features: dict[str, Any] = {}
        for place, (name, field) in enumerate(self._fields.items()):
            if field.kind in _MEDIA:
                self._schema = self._schema.set(place, pa.field(name, media))
                features[name] = {"_type": _MEDIA[field.kind]}
            else:
                features[name] = _feature(self._schema.field(place).type)
        self.features = features
        noted = json.dumps({"info": {"features": features}}).encode()
        self._schema = self._schema.with_metadata(
            {**(self._schema.metadata or {}), b"huggingface": noted}
        )

    def _array(self, field: Field, values: Values) -> Any:
        plain = arrow_array(field, values)
        if field.kind not in _MEDIA:
            return plain
        pa = import_module("pyarrow")
        paths = pa.nulls(len(plain), pa.string())
        missing = plain.is_null()
        return pa.StructArray.from_arrays(
            [plain.cast(pa.binary()), paths], ["bytes", "path"], mask=missing
        )

    def sink(self, folder: str) -> ArrowSink:
        """See `Form.sink`."""
        return ArrowSink(folder, self._schema, self.features, self._limit)


class ArrowSink:
    """Writes Arrow streams, and what Hugging Face's library wants to know of them.

    Args:
        folder: to write into.
        schema: of the rows.
        features: of the columns.
        limit: bytes after which another file begins.
    """

    def __init__(self, folder: str, schema: Any, features: Mapping[str, Any], limit: int) -> None:
        self._pyarrow = import_module("pyarrow")
        self._folder, self._schema, self._features = folder, schema, features
        self._limit = limit
        self._file: NewFile | None = None
        self._names: list[str] = []

    def add(self, packed: Packed) -> None:
        """See `Sink.add`."""
        data = packed.data.serialize().to_pybytes()
        if self._file is not None and self._file.size + len(data) > self._limit:
            self._end()
        if self._file is None:
            self._names.append(f"{len(self._names)}.partial")
            self._file = NewFile(os.path.join(self._folder, self._names[-1]))
            self._file.write(self._schema.serialize().to_pybytes())
        self._file.write(data)

    def _end(self) -> None:
        if self._file is not None:
            self._file.write(b"\xff\xff\xff\xff\0\0\0\0")  # the mark that ends a stream
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """See `Sink.finish`."""
        self._end()
        count = len(self._names)
        names = [f"data-{number:05d}-of-{count:05d}.arrow" for number in range(count)]
        for before, name in zip(self._names, names, strict=True):
            path = os.path.join(self._folder, before)
            with files.translated("rename", path):
                os.rename(path, os.path.join(self._folder, name))
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            # Results of computations are kept by it: no two exports may share one.
            "_fingerprint": uuid.uuid4().hex[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        info = {"citation": "", "description": "", "features": self._features}
        for name, document in (("state", state), ("dataset_info", info)):
            data = json.dumps(document, indent=2).encode()
            files.replace(os.path.join(self._folder, f"{name}.json"), data)

    def close(self) -> None:
        """See `Sink.close`."""
        if self._file is not None:
            self._file.close(durable=False)


def _feature(kind: Any) -> Any:
    """What Hugging Face's library calls an Arrow type."""
    pa = import_module("pyarrow")
    if pa.types.is_struct(kind):
        return {kind.field(n).name: _feature(kind.field(n).type) for n in range(kind.num_fields)}
    if pa.types.is_large_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "LargeList"}
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        length = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
        return {"feature": _feature(kind.value_type), "length": length, "_type": "List"}
    name = str(kind)
    return {"dtype": _VALUES.get(name, name.partition("[day]")[0]), "_type": "Value"}
