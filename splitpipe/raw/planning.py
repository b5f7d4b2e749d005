"""What reading samples takes, before anything is read.

Responsible for: `RawPlan`, a description as a value, and its text.

Rules:
- nothing is fetched for it: where files lie is told by the table, of a large one by some rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from splitpipe.distinct import distinct
from splitpipe.errors import SplitpipeError
from splitpipe.raw.locations import told
from splitpipe.raw.records import RawRecords

__all__ = ["ColumnPlan", "RawPlan", "plan_of"]

_LOOKED_AT = 1000
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """A column of a sample.

    Attributes:
        name: of the column.
        kind: what its values are.
        source: the column of the table that says where the files are; ``None``: the table has it.
        origins: where they are, and which share of those that were looked at.
        missing: share of samples that have none.
        refused: share that the table may not name.
        decoder: what makes values of bytes; ``None``: nothing does.
    """

    name: str
    kind: str
    source: str | None = None
    origins: tuple[tuple[str, float], ...] = ()
    missing: float = 0.0
    refused: float = 0.0
    decoder: str | None = None

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.name}: {self.kind}"
        places = [f"{told(root)} ({share:.0%})" for root, share in self.origins[:_SHOWN]]
        if len(self.origins) > _SHOWN:
            places.append(f"{len(self.origins) - _SHOWN} more")
        decoder = "" if self.decoder is None else f", by {self.decoder}"
        missing = f", {self.missing:.1%} missing" if self.missing else ""
        refused = f", {self.refused:.1%} refused (see allow=)" if self.refused else ""
        where = " and ".join(places) or "nowhere"
        return (
            f"{self.name}: {self.kind}{decoder}, fetched as {self.source!r} says from {where}"
            f"{missing}{refused}"
        )


@dataclass(frozen=True, slots=True)
class RawPlan:
    """What reading all samples once takes.

    Attributes:
        table: what says which samples there are.
        samples: how many.
        columns: of a sample.
        looked_at: rows of the table that this was told by.
        requests: files to be fetched, about; with a cache, at most, and once on a machine.
        concurrency: requests under way at a time, in every process.
        cache: where files are kept; ``None``: nowhere.
        transforms: what is made of samples.
    """

    table: str
    samples: int
    columns: tuple[ColumnPlan, ...]
    looked_at: int
    requests: int
    concurrency: int
    cache: str | None
    transforms: tuple[str, ...] = ()

    def __str__(self) -> str:
        cache = f"through the cache {self.cache}" if self.cache else "without a cache, every time"
        lines = [("samples", f"{self.samples:,} of {self.table}")]
        lines += [
            ("" if number else "columns", str(column)) for number, column in enumerate(self.columns)
        ]
        about = "" if self.looked_at >= self.samples else "about "
        lines.append(
            ("requests", f"{about}{self.requests:,}, {self.concurrency} at a time, {cache}")
        )
        if self.transforms:
            lines.append(("transforms", ", ".join(self.transforms)))
        return "\n".join(f"{name:<11} {value}" for name, value in lines)


def plan_of(records: RawRecords, transforms: Sequence[Any]) -> RawPlan:
    """What reading some samples takes."""
    count = len(records)
    rows = distinct(np.linspace(0, max(0, count - 1), min(count, _LOOKED_AT)).astype(np.int64))
    columns: list[ColumnPlan] = []
    files = 0.0
    for name, field in records.schema.items():
        column = records.fetched.get(name)
        if column is None:
            columns.append(ColumnPlan(name, field.description))
            continue
        places = records.table_rows(rows)
        texts = records.table.records.read(places, [column.source])[column.source]
        origins: Counter[str] = Counter()
        missing = refused = 0
        for text in texts:
            if text is None or text == "":
                missing += 1
                continue
            try:
                origins[records.rules.locate(text).root] += 1
            except SplitpipeError:
                refused += 1
        looked = max(1, len(rows))
        files += sum(origins.values()) / looked
        shares = tuple((root, number / looked) for root, number in origins.most_common())
        decoder = None if column.decode is None else _name(column.decode)
        columns.append(
            ColumnPlan(
                name,
                field.description,
                column.source,
                shares,
                missing / looked,
                refused / looked,
                decoder,
            )
        )
    return RawPlan(
        records.table.name,
        count,
        tuple(columns),
        len(rows),
        round(files * count),
        records.fetcher.access.concurrency,
        records.fetcher.access.cache_dir,
        tuple(map(_name, transforms)),
    )


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))
