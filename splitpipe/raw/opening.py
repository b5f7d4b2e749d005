"""From a table to a dataset of samples.

Responsible for: `open_raw`: what a user may say, put together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.raw.dataset import RawDataset
from splitpipe.raw.fetching import Access, Fetcher, options_by_origin
from splitpipe.raw.locations import is_url, placed, rules_of
from splitpipe.raw.records import Fetched, RawRecords
from splitpipe.raw.sources import TableOptions, open_table
from splitpipe.raw.tables import Table
from splitpipe.raw.transforms import Transform, TransformedRecords
from splitpipe.schema import Field, checked_name
from splitpipe.stores import Store
from splitpipe.stores.sealed import Sealed
from splitpipe.views import Selection

__all__ = ["open_raw"]

_AHEAD = 2
"""Samples that are read ahead, for every request that may be under way."""


def open_raw(
    source: Any,
    *,
    fetch: str | Sequence[str] | Mapping[str, str] | None = None,
    decode: Mapping[str, Callable[[bytes], Any]] | None = None,
    columns: Sequence[str] | None = None,
    transforms: Sequence[Transform] = (),
    where: str | None = None,
    parameters: Sequence[Any] = (),
    max_size: int | None = None,
    base: str | os.PathLike[str] | None = None,
    allow: str | Sequence[str] = (),
    size: str | Mapping[str, str] | None = None,
    md5: str | Mapping[str, str] | None = None,
    sha256: str | Mapping[str, str] | None = None,
    key: str | None = None,
    kind: str | None = None,
    format: str | None = None,
    table_options: Mapping[str, Any] | None = None,
    index_dir: str | os.PathLike[str] | None = None,
    on_error: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_limit: int | str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    stores: Mapping[str, Store] | None = None,
    concurrency: int = 16,
    ahead: int | None = None,
) -> RawDataset:
    r"""Open samples whose columns are files: images, sound, video, anything, wherever they lie.

    A table says which samples there are: a row is a sample, and some of its columns are paths or
    urls. Those are fetched when a sample is read, compared with what the table says of them,
    decoded, and transformed. See ``docs/raw.md``.

    Args:
        source: the table: a file of CSV, Parquet, JSON or JSON Lines, or a pattern of such
            (``"s3://bucket/tables/*.parquet"``); a folder, whose files of one stem are one sample
            (``a.jpg`` and ``a.txt``); a text file or a list of paths and urls, one a sample; a list
            of rows (dicts); or a `Dataset`.
        fetch: the columns that are files: names of the table's columns, or names of a sample's
            columns with the table's column that says where each lies. Of folders and lists, all.
        decode: by column of a sample, what makes values of bytes: ``sp.media.image(size=224)``, or
            any function.
        columns: the columns of a sample, in this order; all unless said.
        transforms: functions from a sample to a sample; a generator function makes several of one.
        where: an expression of SQL about the table's columns: only such rows are samples.
        parameters: a value for every ``?`` in it.
        max_size: at most so many samples: the first ones. (`Dataset.sample` draws by chance.)
        base: what relative paths in the table are relative to; its own folder unless given.
        allow: what the table may name beside what lies below its base or on its origin:
            ``"https://host"``, ``"https://*.host"``, ``"s3://bucket"``, a local folder, or ``"*"``
            for every remote origin.
        size: the table's column that says how many bytes a file has; by column where several are
            fetched. So with ``md5`` and ``sha256``.
        md5: see ``size``.
        sha256: see ``size``.
        key: the table's column that names samples, for ``ds["name"]``.
        kind: ``"table"``, ``"folder"`` or ``"files"``, where the name does not say.
        format: of the table, where its name does not say.
        table_options: how the table is read: options of its format, see ``docs/formats.md``.
        index_dir: where the index of a local table is kept; beside it unless given.
        on_error: what `RawDataset.pipeline` does with samples that cannot be read.
        cache_dir: a folder where files are kept, shared by all processes of the machine.
        cache_limit: bytes of it, such as ``"50GB"``.
        storage_options: for the stores of remote origins: of the table's own, or by origin,
            ``{"s3://bucket": {...}}``. They are sent to no other origin that a table names.
        stores: stores of your own, by the url of their root.
        concurrency: requests under way at a time, in every process.
        ahead: samples that are read ahead; twice ``concurrency`` unless given.

    Raises:
        StorageError: the table is not there, or cannot be read.
        FormatError: it is no table, lacks a column, or an option does not fit.

    Example:
        >>> import pathlib, tempfile, splitpipe as sp
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("hello")
        >>> _ = (folder / "table.csv").write_text("file,n\na.txt,7\n")
        >>> with sp.open_raw(folder / "table.csv", fetch=["file"]) as ds:
        ...     ds[0]
        {'file': b'hello', 'n': '7'}
    """
    access = Access(
        stores={placed(url).root: store for url, store in (stores or {}).items()},
        options=Sealed(options_by_origin(storage_options, _origins(source, base, allow))),
        cache_dir=None if cache_dir is None else os.path.abspath(os.fspath(cache_dir)),
        cache_limit=cache_limit,
        concurrency=_positive("concurrency", concurrency),
    )
    options = TableOptions(
        kind=kind,
        format=format,
        base=None if base is None else os.fspath(base),
        key=key,
        index_dir=None if index_dir is None else os.fspath(index_dir),
        more=dict(table_options or {}),
    )
    table = open_table(source, options, access)
    try:
        sums = {"size": size, "md5": md5, "sha256": sha256}
        fetched = _fetched(table, fetch, decode or {}, sums)
        records = RawRecords(
            table,
            fetched,
            _columns(table, fetched, columns),
            rules=rules_of(table.base, allow),
            fetcher=Fetcher(access),
            selection=_selection(table, where, parameters, max_size),
            ahead=_positive("ahead", _AHEAD * concurrency if ahead is None else ahead),
        )
    except BaseException:
        table.close()
        raise
    if transforms:
        return RawDataset(TransformedRecords(records, transforms), on_error)
    return RawDataset(records, on_error)


def _origins(source: Any, base: Any, allow: str | Sequence[str]) -> list[str]:
    """What a user names that may be a url."""
    several = source if isinstance(source, list | tuple) else [source]
    allowed = [allow] if isinstance(allow, str) else allow
    named = (one for one in (*several, base, *allowed) if isinstance(one, str))
    return [one for one in named if is_url(one) and "*" not in one.split("/")[2]]


def _selection(
    table: Table, where: str | None, parameters: Sequence[Any], max_size: int | None
) -> Selection | None:
    limit = None if max_size is None else _positive("max_size", max_size)
    if where is not None:
        return Selection(table.catalog.where(where, parameters, limit=limit))
    if limit is not None and limit < len(table.records):
        return Selection(range(limit))
    return None


def _fetched(
    table: Table,
    fetch: str | Sequence[str] | Mapping[str, str] | None,
    decode: Mapping[str, Callable[[bytes], Any]],
    sums: Mapping[str, str | Mapping[str, str] | None],
) -> dict[str, Fetched]:
    """The columns that are files."""
    schema = table.records.schema
    if fetch is None:
        if not table.files:
            raise FormatError(
                f"which columns of {table.name} are files? say fetch=; columns: {', '.join(schema)}"
            )
        sources = {name: name for name in table.files}
    elif isinstance(fetch, Mapping):
        sources = {checked_name(name): given for name, given in fetch.items()}
    else:
        names = (fetch,) if isinstance(fetch, str) else fetch
        sources = {name: name for name in names}
    by_column = {what: _by_column(what, given, sources) for what, given in sums.items()}
    for name in decode:
        if name not in sources:
            raise FormatError(f"decode= names {name!r}, which is not fetched: {', '.join(sources)}")
    found = {
        name: Fetched(
            given,
            _field_of(decode.get(name)),
            decode.get(name),
            **{what: columns.get(name) for what, columns in by_column.items()},
        )
        for name, given in sources.items()
    }
    for column in found.values():
        for needed in column.needs:
            if needed not in schema:
                raise FormatError(
                    f"{table.name} has no column {needed!r}; columns: {', '.join(schema)}"
                )
    return found


def _by_column(
    what: str, given: str | Mapping[str, str] | None, sources: Mapping[str, str]
) -> Mapping[str, str]:
    if given is None:
        return {}
    if isinstance(given, str):
        if len(sources) != 1:
            raise FormatError(
                f"{what}= must say of which of {', '.join(sources)}: {what}={{column: {given!r}}}"
            )
        return {next(iter(sources)): given}
    for name in given:
        if name not in sources:
            raise FormatError(f"{what}= names {name!r}, which is not fetched")
    return given


def _field_of(decode: Callable[[bytes], Any] | None) -> Field:
    """What a decoder makes: as it says itself, else anything."""
    if decode is None:
        return Field("bytes")
    found = getattr(decode, "field", None)
    return found if isinstance(found, Field) else Field("pickle")


def _columns(
    table: Table, fetched: Mapping[str, Fetched], columns: Sequence[str] | None
) -> tuple[str, ...]:
    """The columns of a sample: the table's, then those that are files by another name."""
    known = [*table.records.schema, *(name for name in fetched if name not in table.records.schema)]
    if columns is None:
        return tuple(known)
    chosen = (columns,) if isinstance(columns, str) else tuple(columns)
    for name in chosen:
        if name not in known:
            raise FormatError(f"there is no column {name!r}; columns: {', '.join(known)}")
    if len(set(chosen)) != len(chosen) or not chosen:
        raise FormatError(f"columns= names some columns, each once, not {chosen}")
    return chosen


def _positive(name: str, value: Any) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1:
        raise FormatError(f"{name}= is a number from 1, not {value!r}")
    return int(value)
