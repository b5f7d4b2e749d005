"""From a table to a dataset of samples.

Responsible for: `open_raw`: what a user may say, put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from splitpipe.raw.dataset import RawDataset
from splitpipe.raw.fetching import Fetcher
from splitpipe.raw.locations import rules_of
from splitpipe.raw.options import (
    Decode,
    Fetch,
    RawOptions,
    access_of,
    columns_of,
    fetched_of,
    positive,
    table_options_of,
)
from splitpipe.raw.records import Fetched, RawRecords
from splitpipe.raw.sources import open_table
from splitpipe.raw.tables import Table
from splitpipe.raw.transforms import Transform, TransformedRecords
from splitpipe.views import Selection

__all__ = ["open_raw"]

_AHEAD = 2
"""Samples that are read ahead, for every request that may be under way."""


def open_raw(
    source: Any,
    *,
    fetch: Fetch | None = None,
    decode: Mapping[str, Decode] | None = None,
    columns: Sequence[str] | None = None,
    transforms: Sequence[Transform] = (),
    where: str | None = None,
    **more: Unpack[RawOptions],
) -> RawDataset:
    r"""Open samples whose columns are files: images, sound, anything; see ``docs/raw.md``.

    Args:
        source: a table, of which a row is a sample (CSV, Parquet, JSON, JSON Lines, a pattern of
            such, a list of dicts, a `Dataset`); a folder, where files of one stem are a sample; a
            list of files, or a text file that lists them. Paths and urls alike.
        fetch: the columns that are files; or those of a sample, each with the table's column that
            says where its files lie. Of folders and lists, all.
        decode: by column, what makes values of bytes: ``sp.media.image(size=224)``, ``"image"``,
            any function.
        columns: those of a sample, in this order; all unless said.
        transforms: functions from a sample to another; a generator function makes several of one.
        where: an expression of SQL about the table's columns: only such rows are samples.
        more: ``max_size``, ``allow``, ``cache_dir``, ``on_error``, ...: see
            `splitpipe.raw.options.RawOptions`.

    Raises:
        StorageError: the table cannot be read. FormatError: it is none, or an option does not fit.

    Example:
        >>> import pathlib, tempfile, splitpipe as sp
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("hello")
        >>> _ = (folder / "table.csv").write_text("file,n\na.txt,7\n")
        >>> with sp.open_raw(folder / "table.csv", fetch="file") as ds:
        ...     ds[0]
        {'file': b'hello', 'n': '7'}
    """
    options, access = table_options_of(more), access_of(source, more)
    table = open_table(source, options, access)
    try:
        fetched = fetched_of(table, fetch, decode or {}, more)
        chosen = columns_of(table, fetched, columns)
        samples = _samples(table, fetched, chosen, where, Fetcher(access), more)
    except BaseException:
        table.close()
        raise
    made = TransformedRecords(samples, transforms) if transforms else samples
    return RawDataset(made, more.get("on_error"))


def _samples(
    table: Table,
    fetched: Mapping[str, Fetched],
    columns: Sequence[str],
    where: str | None,
    fetcher: Fetcher,
    options: RawOptions,
) -> RawRecords:
    return RawRecords(
        table,
        fetched,
        columns,
        rules=rules_of(table.base, options.get("allow", ())),
        fetcher=fetcher,
        selection=_selection(table, where, options),
        ahead=positive("ahead", options.get("ahead", _AHEAD * fetcher.access.concurrency)),
    )


def _selection(table: Table, where: str | None, options: RawOptions) -> Selection | None:
    """The rows of the table that are samples; ``None``: all of them."""
    most = options.get("max_size")
    limit = None if most is None else positive("max_size", most)
    if where is not None:
        rows = table.catalog.where(where, options.get("parameters", ()), limit=limit)
        return Selection(rows)
    if limit is not None and limit < len(table.records):
        return Selection(range(limit))
    return None
