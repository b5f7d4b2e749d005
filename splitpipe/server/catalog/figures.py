"""Figures of the columns of a dataset: ranges, histograms, how many different values.

Responsible for: `figures`, what is told of every column; and `Distinct`, which counts different
values in bounded memory.

Rules:
- every record is looked at, in blocks of bounded bytes; counts, ranges and means are of all;
- up to `EXACT` different values their number is exact, beyond that an estimate that says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.dataset.dataset import Dataset
from splitpipe.schema import Field
from splitpipe.summary.columns import Column, ColumnSummary
from splitpipe.summary.numbers import Histogram

__all__ = ["Distinct", "figures"]

EXACT: Final = 1 << 15
_BLOCK_NBYTES: Final = 8 << 20
_FIRST_BLOCK: Final = 16
_MOST_RECORDS: Final = 4096

Json = dict[str, Any]
Hashes = npt.NDArray[np.uint64]


class Distinct:
    """How many different values there are.

    The smallest of their hashes are kept; from how small the largest of these is follows how many
    there are in all (Bar-Yossef, Jayram, Kumar, Sivakumar and Trevisan, 2002).

    Example:
        >>> seen = Distinct()
        >>> seen.add(Field("str"), ["a", "b", "a", None])
        >>> seen.count, seen.exact
        (2, True)
    """

    def __init__(self) -> None:
        self._kept: Hashes = np.empty(0, dtype=np.uint64)
        self.exact = True

    def add(self, field: Field, values: Sequence[Any] | npt.NDArray[Any]) -> None:
        """Look at values, as ``Records.read`` gives them."""
        found = np.unique(np.concatenate([self._kept, _hashes(field, values)]))
        if len(found) > EXACT:
            self.exact = False
            found = found[:EXACT]
        self._kept = found

    @property
    def count(self) -> int:
        """How many there are."""
        if self.exact:
            return len(self._kept)
        return int((EXACT - 1) / (float(self._kept[-1]) / 2.0**64))


def _hashes(field: Field, values: Sequence[Any] | npt.NDArray[Any]) -> Hashes:
    if isinstance(values, np.ndarray) and field.kind == "scalar":
        return _mixed(values)
    made = [_digest(value) for value in values if value is not None]
    return np.frombuffer(b"".join(made), dtype=np.uint64)


def _mixed(values: npt.NDArray[Any]) -> Hashes:
    """Hashes of numbers: their bits, stirred (the finisher of splitmix64)."""
    if values.dtype.kind == "c":
        return np.frombuffer(b"".join(map(_digest, values)), dtype=np.uint64)
    if values.dtype.kind == "f":
        bits: Hashes = (values.astype(np.float64) + 0.0).view(np.uint64)  # one zero, not two
    else:
        bits = values.astype(np.int64).view(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(31))


def _digest(value: Any) -> bytes:
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
    elif isinstance(value, np.ndarray):
        data = repr((value.dtype.str, value.shape)).encode() + value.tobytes()
    elif isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
    else:
        data = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.blake2b(data, digest_size=8).digest()


def figures(dataset: Dataset, *, progress: Callable[[int, int], None] | None = None) -> Json:
    """Figures of every column, in values of JSON.

    Args:
        dataset: any.
        progress: told how many records of how many were looked at.

    Returns:
        ``records`` and ``columns``; of each column ``name``, ``type``, ``count``, ``missing``,
        ``distinct`` (``count``, ``exact``), ``lengths`` (a histogram of bytes), and where there are
        numbers ``min``, ``max``, ``mean``, ``std``, ``quantiles``, ``not_finite``, ``histogram``
        (``edges``, ``counts``); else ``common`` values, ``shapes`` and ``members``.

    Raises:
        CorruptRecord: a record is damaged.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> with sp.DatasetWriter(path := tempfile.mkdtemp()) as writer:
        ...     writer.write_many({"n": n % 3, "text": "a"} for n in range(6))
        >>> n, text = figures(sp.open_dataset(path))["columns"]
        >>> n["mean"], n["distinct"]["count"], text["common"]
        (1.0, 3, [['a', 6]])
    """
    schema = dataset.schema
    columns = {name: Column(name, field) for name, field in schema.items()}
    different = {name: Distinct() for name in schema}
    start, size = 0, _FIRST_BLOCK
    while start < len(dataset):
        rows = np.arange(start, min(start + size, len(dataset)), dtype=np.int64)
        nbytes = 0
        for name, field in schema.items():  # one column of a block is in memory at a time
            values = dataset.records.read(rows, [name])[name]
            nbytes += columns[name].add(values)
            different[name].add(field, values)
        start += len(rows)
        if progress is not None:
            progress(start, len(dataset))
        fitting = _BLOCK_NBYTES * len(rows) // max(1, nbytes)
        size = max(1, min(_MOST_RECORDS, 8 * size, fitting))
    told = [_told(columns[name].summary(), different[name]) for name in schema]
    return {"records": len(dataset), "columns": told}


def _told(summary: ColumnSummary, distinct: Distinct) -> Json:
    made: Json = {
        "name": summary.name,
        "type": summary.type,
        "count": summary.values,
        "missing": summary.missing,
        "distinct": {"count": distinct.count, "exact": distinct.exact},
        "lengths": _histogram(summary.nbytes),
    }
    if summary.numbers is not None:
        told = _histogram(summary.numbers)
        made.update(
            {name: told[name] for name in ("min", "max", "mean", "std")},
            quantiles=told["quantiles"],
            not_finite=summary.numbers.not_finite,
            histogram={"edges": told["edges"], "counts": told["counts"]},
            unit=summary.unit,
        )
    made["common"] = [[text, count] for text, count in summary.common]
    made["shapes"] = [[list(shape), count] for shape, count in summary.shapes]
    made["members"] = [[name, count] for name, count in summary.members]
    return made


def _histogram(found: Histogram) -> Json:
    return {
        "min": found.least,
        "max": found.most,
        "mean": found.mean,
        "std": found.deviation,
        "quantiles": list(found.quantiles),
        "edges": list(found.edges),
        "counts": list(found.counts),
        "exact": found.exact,
    }
