"""The views of a dataset, as its methods.

Responsible for: `Viewable`, the part of ``Dataset`` that makes other datasets of it: what may be
asked, in the words of a user. What comes out is described in the modules beside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.storage.base import Catalog, Records, Rows
from splitpipe.views.concat import concat
from splitpipe.views.join import join
from splitpipe.views.selection import Selection
from splitpipe.views.split import sampled, split
from splitpipe.views.subset import columns, subset

if TYPE_CHECKING:
    from splitpipe.dataset import Dataset

__all__ = ["Viewable"]


class Viewable(ABC):
    """A dataset that views can be made of.

    A view is a full dataset: random access, orders, pipelines, further views. It copies nothing,
    reads through the dataset it is of, pickles with it, and does not close it.
    """

    __slots__ = ()

    _records: Records

    @abstractmethod
    def _viewed(self, records: Records) -> Dataset:
        """The dataset of other records."""

    @abstractmethod
    def _rows_of(self, indices: Any) -> Rows:
        """Indices as checked int64 row numbers from 0."""

    @abstractmethod
    def _asked(self) -> Catalog:
        """The catalog, or an error that says that there is none."""

    def select(self, names: Sequence[str] | str) -> Dataset:
        """The dataset with some columns only; nothing of the others is read.

        Args:
            names: of columns, in the order in which they are wanted.

        Raises:
            FormatError: there is no such column, or one is named twice.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> with sp.DatasetWriter(path) as writer:
            ...     writer.write_many([{"text": "a", "n": 1}, {"text": "b", "n": 2}])
            >>> sp.open_dataset(path).select(["n"])[1]
            {'n': 2}
        """
        return self._viewed(columns(self._records, names))

    def subset(self, indices: Any) -> Dataset:
        """Some records, in any order, repeated as you like.

        Args:
            indices: integers as for ``get_batch``, or a slice or range, which take no memory.

        Raises:
            IndexError: an index is past the end, or the array is not one of integers.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> sp.write_split_data(path, [b"a", b"b", b"c"])
            >>> ds = sp.open_dataset(path)
            >>> list(ds.subset([2, 0])), list(ds.subset(slice(1, 3)))
            ([b'c', b'a'], [b'b', b'c'])
        """
        count = len(self._records)
        if isinstance(indices, slice):
            selection = Selection(range(count)[indices])
        elif isinstance(indices, range) and _inside(indices, count):
            selection = Selection(indices)
        else:
            # A copy: the caller may change his array.
            selection = Selection(np.array(self._rows_of(indices)))
        return self._viewed(subset(self._records, selection))

    def where(
        self,
        clause: str,
        parameters: Sequence[Any] = (),
        *,
        limit: int | None = None,
    ) -> Dataset:
        """The records for which an expression of SQL is true, in row order.

        Names in the expression are ``row``, ``key``, ``meta`` (JSON text), the declared metadata,
        and the columns of the dataset, which are NULL where a value is missing. Other metadata is
        reached as ``json_extract(meta, '$.name')``. The expression can do nothing but read.

        Args:
            clause: the expression; values belong in ``parameters``.
            parameters: a value for every ``?``.
            limit: at most so many records, the first ones.

        Raises:
            FormatError: the dataset has no catalog, or the clause cannot be answered.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> with sp.DatasetWriter(path, metadata={"length": "int64"}) as writer:
            ...     for text in ("one", "three"):
            ...         writer.write(text.encode(), key=text, meta={"length": len(text)})
            >>> list(sp.open_dataset(path).where("length > ?", [3]))
            [b'three']
        """
        rows = self._asked().where(clause, parameters, limit=limit)
        return self._viewed(subset(self._records, Selection(rows)))

    def sample(self, amount: float, *, seed: int) -> Dataset:
        """Some records drawn without repetition, in row order.

        Args:
            amount: how many, or, as a float from 0.0 to 1.0, which fraction.
            seed: any integer; the same one draws the same records.

        Raises:
            FormatError: there are not so many.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> sp.write_split_data(path, [b"%d" % n for n in range(100)])
            >>> ds = sp.open_dataset(path)
            >>> len(ds.sample(7, seed=1)), len(ds.sample(0.25, seed=1))
            (7, 25)
        """
        selection = sampled(len(self._records), amount, seed)
        return self._viewed(subset(self._records, selection))

    def split(
        self,
        fractions: Mapping[str, float],
        *,
        by: str | None = None,
        how: str | None = None,
        seed: int = 0,
    ) -> dict[str, Dataset]:
        """Parts that are disjoint and together everything, each in row order.

        Without ``by``, records are dealt by chance and every part has exactly its share (rounded
        by largest remainder). By groups, no value of ``by`` is in two parts, and shares are as near
        as whole groups allow. By time, earlier records are in earlier parts, exactly in shares.

        Args:
            fractions: name of a part -> its fraction; they add up to 1.
            by: a column, a name in the metadata, or ``"key"``.
            how: ``"group"`` or ``"time"``; by itself, a column of dates is a time, all else a
                group. Records without a value are one group, and are refused as times.
            seed: any integer, for chance and for groups.

        Raises:
            FormatError: fractions do not add up to 1, or ``by`` is not there or cannot be used.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> sp.write_split_data(path, [b"%d" % n for n in range(100)])
            >>> parts = sp.open_dataset(path).split({"train": 0.8, "val": 0.2}, seed=1)
            >>> {name: len(part) for name, part in parts.items()}
            {'train': 80, 'val': 20}
        """
        found = split(self._records, fractions, by=by, how=how, seed=seed)
        return {
            name: self._viewed(subset(self._records, selection))
            for name, selection in found.items()
        }

    def concat(self, *others: Dataset) -> Dataset:
        """This dataset and others end to end; all have the same columns.

        Raises:
            FormatError: columns differ.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> sp.write_split_data(path, [b"a", b"b"])
            >>> ds = sp.open_dataset(path)
            >>> list(ds.concat(ds.subset([0])))
            [b'a', b'b', b'a']
        """
        return self._viewed(concat([self._records, *map(_records, others)]))

    def join(
        self, other: Dataset, on: str = "key", *, how: str = "inner", suffix: str = "_right"
    ) -> Dataset:
        """Columns of two datasets side by side, where records agree in one value.

        Records stay in this dataset's order, each at most once, with this dataset's keys and
        metadata.

        Args:
            other: has every value at most once.
            on: ``"key"`` for the keys, a column of both, or a name in the metadata. A column of
                both comes once in the result.
            how: ``"inner"`` leaves out records without a partner, ``"left"`` keeps them, with
                missing values.
            suffix: is put after a name of ``other`` that is here too.

        Raises:
            FormatError: ``on`` is not there, or is there twice in ``other``; or names clash.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> one, two = tempfile.mkdtemp(), tempfile.mkdtemp()
            >>> with sp.DatasetWriter(one) as writer:
            ...     writer.write_many([{"id": 1, "x": "a"}, {"id": 2, "x": "b"}])
            >>> with sp.DatasetWriter(two) as writer:
            ...     writer.write_many([{"id": 2, "y": 0.5}])
            >>> sp.open_dataset(one).join(sp.open_dataset(two), on="id")[0]
            {'id': 2, 'x': 'b', 'y': 0.5}
        """
        return self._viewed(join(self._records, _records(other), on=on, how=how, suffix=suffix))


def _records(dataset: Any) -> Records:
    if not isinstance(dataset, Viewable):
        raise FormatError(f"a view is made of datasets, not of {type(dataset).__name__}")
    return dataset._records


def _inside(indices: range, count: int) -> bool:
    return not indices or (
        min(indices[0], indices[-1]) >= 0 and max(indices[0], indices[-1]) < count
    )
