"""What a source knows about itself beyond its records.

Responsible for: finding, under the views of a source, the datasets of our own format that it is of,
and what their manifests declare: typed metadata and dictionaries of compression.
"""

from __future__ import annotations

import os
from itertools import chain

from splitpipe.storage.base import Records
from splitpipe.storage.snapshot import read_sealed
from splitpipe.storage.table import TableRecords
from splitpipe.views.concat import Concat
from splitpipe.views.subset import Columns, Subset

__all__ = ["declared_metadata", "dictionaries", "reads_from"]


def _tables(records: Records) -> list[TableRecords]:
    """The datasets of our own format that a view's rows come from; none if some are not."""
    if isinstance(records, TableRecords):
        return [records]
    if isinstance(records, Subset | Columns):
        return _tables(records.parent)
    if isinstance(records, Concat):
        found = [_tables(part) for part in records.parts]
        return list(chain.from_iterable(found)) if all(found) else []
    return []


def reads_from(records: Records, directory: str) -> bool:
    """Whether a directory is that of a dataset that a source is of."""
    real = os.path.realpath(directory)
    return any(os.path.realpath(table.path) == real for table in _tables(records))


def declared_metadata(records: Records) -> dict[str, str]:
    """Declared names of the metadata and their types, where all parts of a source agree.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> with sp.DatasetWriter(path, metadata={"n": "int64"}) as writer:
        ...     writer.write(b"a", meta={"n": 1})
        >>> with sp.open_dataset(path) as dataset:
        ...     declared_metadata(dataset.subset([0]).records)
        {'n': 'int64'}
    """
    catalogs = [table.manifest.catalog for table in _tables(records)]
    declared = [dict(catalog.metadata) for catalog in catalogs if catalog is not None]
    if not declared or len(declared) < len(catalogs):
        return {}
    first, *others = declared
    return {n: kind for n, kind in first.items() if all(o.get(n) == kind for o in others)}


def dictionaries(records: Records) -> dict[str, bytes]:
    """The dictionary of every column that has one; of several parts, the first one's."""
    found: dict[str, bytes] = {}
    for table in _tables(records)[:1]:
        manifest = table.manifest
        for column in manifest.columns:
            if column.dictionary is not None:
                identity = manifest.file_id("dictionary", column)
                found[column.name] = read_sealed(table.path, identity, column.dictionary)
    return found
