"""A folder of files as a table: the files of one stem are one sample.

Responsible for: `grouped`, which makes the rows of a table of the names of files.

Rules:
- what is one sample is told as for WebDataset's shards: the key is a path up to the first dot of
  its last part, the column is what follows, in lower case; names that begin with a dot belong to
  none;
- samples are in natural order (``img2`` before ``img10``), whatever order the names come in;
- a column that a sample lacks is missing there; two files that would be one column of one sample
  are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from splitpipe.errors import FormatError
from splitpipe.formats.base import Source, natural_key
from splitpipe.formats.names import column_names
from splitpipe.formats.shards.tar import KEY, split_name
from splitpipe.schema import Field, Schema
from splitpipe.storage.base import MemoryRecords

__all__ = ["grouped", "names_below"]


def names_below(folder: str) -> Iterator[str]:
    """Names of all files below a local folder, relative to it, with slashes."""
    for path in Source.at(folder).files():
        yield os.path.relpath(path, folder).replace(os.sep, "/")


def grouped(names: Iterable[str], place: str) -> MemoryRecords:
    """The table of files: ``__key__``, and a column with a path for every extension.

    Args:
        names: relative to the folder.
        place: the folder, for messages.

    Raises:
        FormatError: there is none that belongs to a sample, or two are the same.

    Example:
        >>> table = grouped(["b/2.jpg", "b/10.jpg", "b/2.txt", ".hidden"], "folder")
        >>> table.schema
        Schema({'__key__': Field('str'), 'jpg': Field('str'), 'txt': Field('str')})
    """
    samples: dict[str, dict[str, str]] = {}
    extensions: dict[str, None] = {}
    for name in names:
        if any(part.startswith(".") for part in name.split("/")):
            continue
        found = split_name(name)
        if found is None:
            continue
        key, extension = found
        files = samples.setdefault(key, {})
        if extension in files:
            raise FormatError(
                f"{place} has two files for {extension!r} of sample {key!r}: "
                f"{files[extension]!r} and {name!r}"
            )
        files[extension] = name
        extensions[extension] = None
    if not samples:
        raise FormatError(f"{place} has no files named like samples: name.extension")
    keys = sorted(samples, key=natural_key)
    columns = column_names([KEY, *sorted(extensions)])
    schema = Schema(dict.fromkeys(columns, Field("str")))
    values: dict[str, list[str | None]] = {
        column: [samples[key].get(extension) for key in keys]
        for column, extension in columns.items()
    }
    values[next(iter(columns))] = list(keys)
    return MemoryRecords(schema, values)
