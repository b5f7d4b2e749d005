"""What may be said about raw samples.

Responsible for: `RawOptions`, the options of `open_raw` beside those that it names itself; and
looking at what users say: columns, sums, numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.raw import media
from splitpipe.raw.fetching import Access, options_by_origin
from splitpipe.raw.locations import is_url, placed
from splitpipe.raw.records import Fetched
from splitpipe.raw.sources import TableOptions
from splitpipe.raw.tables import Table
from splitpipe.schema import Field, checked_name
from splitpipe.stores import Store
from splitpipe.stores.sealed import Sealed

__all__ = [
    "Decode",
    "Fetch",
    "RawOptions",
    "access_of",
    "columns_of",
    "fetched_of",
    "positive",
    "table_options_of",
]

Fetch = str | Sequence[str] | Mapping[str, str]
Decode = str | Callable[[bytes], Any]
Sums = str | Mapping[str, str]


class RawOptions(TypedDict, total=False):
    """What else may be said about raw samples.

    Attributes:
        parameters: a value for every ``?`` in ``where``.
        max_size: at most so many samples: the first ones. (`Dataset.sample` draws by chance.)
        on_error: what `RawDataset.pipeline` does with samples that cannot be read.
        cache_dir: a folder where remote files are kept, shared by all processes of the machine.
        cache_limit: bytes of it, such as ``"50GB"``.
        base: what relative paths in the table are relative to; its own folder unless given.
        allow: what the table may name beside what lies below its base or on its origin:
            ``"https://host"``, ``"https://*.host"``, ``"s3://bucket"``, a local folder, or ``"*"``
            for every remote origin.
        size: the table's column that says how many bytes a file has; by column of a sample where
            several are fetched.
        md5: the same, for a sum in hexadecimal digits.
        sha256: the same.
        key: the table's column that names samples, for ``ds["name"]``.
        kind: ``"table"``, ``"folder"`` or ``"files"``, where the source's name does not say.
        format: of the table, where its name does not say.
        table_options: how the table is read: options of its format, see ``docs/formats.md``.
        index_dir: where the index of a local table is kept; beside it unless given.
        storage_options: for the stores of remote origins: of the table's own, or by origin,
            ``{"s3://bucket": {...}}``. They are sent to no other origin that a table names.
        stores: stores of your own, by the url of their root.
        concurrency: requests under way at a time, in every process; 16 unless given.
        ahead: samples that are read ahead; twice ``concurrency`` unless given.
    """

    parameters: Sequence[Any]
    max_size: int | None
    on_error: Any
    cache_dir: str | os.PathLike[str] | None
    cache_limit: int | str | None
    base: str | os.PathLike[str] | None
    allow: str | Sequence[str]
    size: Sums | None
    md5: Sums | None
    sha256: Sums | None
    key: str | None
    kind: str | None
    format: str | None
    table_options: Mapping[str, Any] | None
    index_dir: str | os.PathLike[str] | None
    storage_options: Mapping[str, Any] | None
    stores: Mapping[str, Store] | None
    concurrency: int
    ahead: int


_CONCURRENCY = 16
_DECODERS: Mapping[str, Callable[[], Callable[[bytes], Any]]] = {
    "image": media.image,
    "audio": media.audio,
    "video": media.video,
    "text": media.text,
    "json": media.json,
}


def table_options_of(options: RawOptions) -> TableOptions:
    """How the table is read.

    Raises:
        TypeError: there is no such option.
    """
    for name in options:
        if name not in RawOptions.__optional_keys__:
            known = ", ".join(sorted(RawOptions.__optional_keys__))
            raise TypeError(f"open_raw has no option {name!r}; further ones are {known}")
    base, index_dir = options.get("base"), options.get("index_dir")
    return TableOptions(
        kind=options.get("kind"),
        format=options.get("format"),
        base=None if base is None else os.fspath(base),
        key=options.get("key"),
        index_dir=None if index_dir is None else os.fspath(index_dir),
        more=dict(options.get("table_options") or {}),
    )


def access_of(source: Any, options: RawOptions) -> Access:
    """How files are had."""
    cache_dir = options.get("cache_dir")
    origins = _origins(source, options.get("base"), options.get("allow", ()))
    given = options.get("stores") or {}
    return Access(
        stores={placed(url).root: store for url, store in given.items()},
        options=Sealed(options_by_origin(options.get("storage_options"), origins)),
        cache_dir=None if cache_dir is None else os.path.abspath(os.fspath(cache_dir)),
        cache_limit=options.get("cache_limit"),
        concurrency=positive("concurrency", options.get("concurrency", _CONCURRENCY)),
    )


def _origins(source: Any, base: Any, allow: str | Sequence[str]) -> list[str]:
    """The urls that a user names, but patterns of them."""
    several = source if isinstance(source, list | tuple) else [source]
    allowed = [allow] if isinstance(allow, str) else allow
    named = (one for one in (*several, base, *allowed) if isinstance(one, str))
    return [one for one in named if is_url(one) and "*" not in one.split("/")[2]]


def fetched_of(
    table: Table,
    fetch: Fetch | None,
    decode: Mapping[str, Decode],
    options: RawOptions,
) -> dict[str, Fetched]:
    """The columns that are files.

    Raises:
        FormatError: nothing says which, or the table lacks a column that is named.
    """
    schema = table.records.schema
    sources = _sources(table, fetch)
    for name in decode:
        if name not in sources:
            raise FormatError(f"decode= names {name!r}, which is not fetched: {', '.join(sources)}")
    decoders = {name: _decoder_of(given) for name, given in decode.items()}
    sizes = _by_column("size", options.get("size"), sources)
    md5s = _by_column("md5", options.get("md5"), sources)
    sha256s = _by_column("sha256", options.get("sha256"), sources)
    found = {
        name: Fetched(
            given,
            _field_of(decoders.get(name)),
            decoders.get(name),
            size=sizes.get(name),
            md5=md5s.get(name),
            sha256=sha256s.get(name),
        )
        for name, given in sources.items()
    }
    needed = {name for column in found.values() for name in column.needs}
    for name in sorted(needed - set(schema)):
        raise FormatError(f"{table.name} has no column {name!r}; columns: {', '.join(schema)}")
    return found


def _sources(table: Table, fetch: Fetch | None) -> dict[str, str]:
    """By column of a sample, the table's column that says where the files lie."""
    if fetch is None:
        if not table.files:
            raise FormatError(
                f"which columns of {table.name} are files? say fetch=; columns: "
                f"{', '.join(table.records.schema)}"
            )
        return {name: name for name in table.files}
    if isinstance(fetch, Mapping):
        return {checked_name(name): given for name, given in fetch.items()}
    return {name: name for name in ((fetch,) if isinstance(fetch, str) else fetch)}


def _by_column(what: str, given: Sums | None, sources: Mapping[str, str]) -> Mapping[str, str]:
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


def _decoder_of(given: Decode) -> Callable[[bytes], Any]:
    """A decoder, or the one of this name as it is by itself."""
    if not isinstance(given, str):
        return given
    if given not in _DECODERS:
        raise FormatError(f"there is no decoder {given!r}; there are {', '.join(_DECODERS)}")
    return _DECODERS[given]()


def _field_of(decode: Callable[[bytes], Any] | None) -> Field:
    """What a decoder makes: as it says itself, else anything."""
    if decode is None:
        return Field("bytes")
    found = getattr(decode, "field", None)
    return found if isinstance(found, Field) else Field("pickle")


def columns_of(
    table: Table, fetched: Mapping[str, Fetched], columns: Sequence[str] | None
) -> tuple[str, ...]:
    """The columns of a sample: the table's, then those that are files by another name.

    Raises:
        FormatError: some are named that there are not.
    """
    own = table.records.schema
    known = [*own, *(name for name in fetched if name not in own)]
    if columns is None:
        return tuple(known)
    chosen = (columns,) if isinstance(columns, str) else tuple(columns)
    for name in chosen:
        if name not in known:
            raise FormatError(f"there is no column {name!r}; columns: {', '.join(known)}")
    if len(set(chosen)) != len(chosen) or not chosen:
        raise FormatError(f"columns= names some columns, each once, not {chosen}")
    return chosen


def positive(name: str, value: Any) -> int:
    """A number from 1.

    Raises:
        FormatError: it is none.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1:
        raise FormatError(f"{name}= is a number from 1, not {value!r}")
    return int(value)
