"""What a dataset says of its records beside giving them.

Responsible for: `Telling`, the part of `Dataset` that has keys, metadata, the schema, places and
sizes, and hands everything to Arrow and to Ray.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.schema import Schema
from splitpipe.storage.base import Catalog, Records, Rows
from splitpipe.storage.layout import BinLayout

__all__ = ["Indices", "Telling"]

Indices = Sequence[SupportsIndex] | npt.NDArray[np.integer[Any]]


class Telling(ABC):
    """For `Dataset` alone, which has the records."""

    __slots__ = ()

    _count: int
    _records: Records
    _schema: Schema

    @abstractmethod
    def _rows_of(self, indices: Any) -> Rows:
        """Indices as checked rows."""

    def keys(self, indices: Indices | None = None) -> list[str | None]:
        """The keys of records, of all unless said; ``None`` for a record without one.

        Raises:
            FormatError: the dataset has no keys.
        """
        rows = np.arange(self._count) if indices is None else self._rows_of(indices)
        return self._asked().keys(rows)

    def meta(self, index: SupportsIndex | str) -> dict[str, Any]:
        """The metadata of one record, by its index or key; empty if it has none.

        Raises:
            KeyError: there is no such key.
            FormatError: the dataset has no metadata.
        """
        return self.metas([self._asked().row(index) if isinstance(index, str) else index])[0]

    def metas(self, indices: Indices | None = None) -> list[dict[str, Any]]:
        """The metadata of several records, of all unless said."""
        rows = np.arange(self._count) if indices is None else self._rows_of(indices)
        return self._asked().meta(rows)

    def _asked(self) -> Catalog:
        if self._records.catalog is None:
            raise FormatError(
                f"{self!r} has no catalog of keys and metadata: write records with key= or meta=, "
                "or declare metadata, with a DatasetWriter"
            )
        return self._records.catalog

    @property
    def records(self) -> Records:
        """What this reads: the seam below, for those who work by the block."""
        return self._records

    @property
    def schema(self) -> Schema:
        """The columns of a record."""
        return self._schema

    @property
    def path(self) -> str:
        """The dataset's directory; a view has none."""
        return str(self._told("path"))

    @property
    def generation(self) -> int:
        """The commit that this snapshot is of; it grows with every commit."""
        return int(self._told("manifest").generation)

    @property
    def nbytes(self) -> int:
        """Bytes of all records together, as stored. Reads the index through, once."""
        return int(self._told("nbytes")())

    def _told(self, name: str) -> Any:
        if not hasattr(self._records, name):
            raise AttributeError(f"{self!r} is not one directory of our own format: it has no such")
        return getattr(self._records, name)

    def bin_layout(self) -> BinLayout:
        """Which rows lie in which bin, for a binwise order."""
        return self._records.layout()

    def to_arrow(self, columns: Sequence[str] | None = None, *, metadata: bool = False) -> Any:
        """The dataset as a ``pyarrow.Table``; needs the extra ``table``.

        See ``splitpipe.integrations.arrow`` for which column becomes what, and for a stream of
        batches instead of a table in memory.

        Args:
            columns: which columns, all of them unless said.
            metadata: add ``key`` and ``meta`` (JSON text) of every record.
        """
        # By name: it is a room above this one, and has an extra of its own.
        arrow = import_module("splitpipe.integrations.arrow")
        return arrow.to_arrow(self, columns, metadata=metadata)

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """The dataset as a ``pandas.DataFrame``; needs the extra ``pandas``.

        See ``splitpipe.integrations.tables`` for which column becomes what.

        Args:
            columns: which columns, all of them unless said.
        """
        return import_module("splitpipe.integrations.tables").to_pandas(self, columns)

    def to_polars(self, columns: Sequence[str] | None = None) -> Any:
        """The dataset as a ``polars.DataFrame``; needs the extra ``polars``.

        See ``splitpipe.integrations.tables`` for which column becomes what.

        Args:
            columns: which columns, all of them unless said.
        """
        return import_module("splitpipe.integrations.tables").to_polars(self, columns)

    def to_ray(self, columns: Sequence[str] | None = None, **options: Any) -> Any:
        """The dataset as a ``ray.data.Dataset``, read in parallel tasks; needs the extra ``ray``.

        See ``splitpipe.integrations.ray_data``, also for writing one.

        Args:
            columns: which columns, all of them unless said.
            options: ``shuffle``, ``seed``, ``epoch``, ``window``, ``tensors``, ``ray_options``.
        """
        ray_data = import_module("splitpipe.integrations.ray_data")
        return ray_data.to_ray(self, columns, **options)
