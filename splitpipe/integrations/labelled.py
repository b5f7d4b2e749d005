"""Keys and metadata of records as columns, for formats that have nothing else.

Responsible for: `with_labels`, a view of a dataset with two columns more.

Rules:
- a record without a key, or without metadata, has a missing value there;
- nothing of the catalog is read before somebody asks for one of these columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from splitpipe.dataset import Dataset, dataset_of
from splitpipe.errors import FormatError
from splitpipe.schema import Field, Schema
from splitpipe.storage.base import Batch, Catalog, Order, Records, Rows, Values, iterate_blocks
from splitpipe.storage.layout import BinLayout

__all__ = ["label_fields", "with_labels"]


def label_fields(keys: str | None, metas: str | None) -> dict[str, Field]:
    """The columns that keys and metadata become, under these names; ``None`` leaves one out.

    Raises:
        FormatError: both have one name.
    """
    if keys is not None and keys == metas:
        raise FormatError(f"keys and metadata cannot both be called {keys!r}")
    found = {keys: Field("str"), metas: Field("json")}
    return {name: field for name, field in found.items() if name is not None}


def with_labels(dataset: Dataset, keys: str | None, metas: str | None) -> Dataset:
    """A dataset whose records have their keys and metadata as columns.

    Args:
        dataset: any, with a catalog.
        keys: what the column of the keys is called; ``None``: there is none.
        metas: the same of the metadata.

    Raises:
        FormatError: the dataset has no catalog, or a column of that name.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> with sp.DatasetWriter(path) as writer:
        ...     writer.write({"n": 1}, key="one", meta={"a": 2})
        >>> with sp.open_dataset(path) as ds:
        ...     list(with_labels(ds, "key", "meta"))
        [{'n': 1, 'key': 'one', 'meta': {'a': 2}}]
    """
    if keys is None and metas is None:
        return dataset
    if dataset.records.catalog is None:
        raise FormatError(f"{dataset!r} has no catalog, so that there are no keys and metadata")
    return dataset_of(_Labelled(dataset.records, keys, metas))


class _Labelled:
    """Records with columns made of their catalog."""

    def __init__(self, parent: Records, keys: str | None, metas: str | None) -> None:
        self.catalog: Catalog | None = None  # it has become columns
        self._parent, self._keys, self._metas = parent, keys, metas
        own, more = dict(parent.schema), label_fields(keys, metas)
        if both := own.keys() & more.keys():
            raise FormatError(f"there is a column {min(both)!r} already: say another name")
        self.schema = Schema({**own, **more})

    def __len__(self) -> int:
        return len(self._parent)

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `Records.read`."""
        stored = [name for name in columns if name in self._parent.schema]
        found = dict(self._parent.read(rows, stored, out)) if stored else {}
        return {name: found[name] if name in found else self._label(name, rows) for name in columns}

    def _label(self, name: str, rows: Rows) -> Values:
        catalog = self._parent.catalog
        assert catalog is not None
        if name == self._keys:
            return catalog.keys(rows)
        return [meta or None for meta in catalog.meta(rows)]

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`."""
        return iterate_blocks(self, order, start, stop)

    def layout(self) -> BinLayout:
        """See `Records.layout`."""
        return self._parent.layout()

    def close(self) -> None:
        """The parent's files are the parent's."""

    def __reduce__(self) -> Any:
        return _Labelled, (self._parent, self._keys, self._metas)

    def __repr__(self) -> str:
        return repr(self._parent)
