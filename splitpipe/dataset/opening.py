"""From a path to a dataset.

Responsible for: `open_dataset`, which tells a dataset of our own format from data of another, and
opens either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from splitpipe.dataset.dataset import Dataset, dataset_of
from splitpipe.errors import FormatError
from splitpipe.storage import files
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.snapshot import open_all
from splitpipe.storage.table import OpenOptions, TableRecords

__all__ = ["is_remote", "open_dataset", "refuse_options"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def open_dataset(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    verify: bool = True,
    max_open_bins: int = 256,
    decode: bool = False,
    allow_pickle: bool = False,
    format: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_limit: int | str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Dataset:
    """Open a dataset: of a `DatasetWriter`, here or at a url, or data of another format.

    Args:
        path: its directory or url (``s3://bucket/data``, see ``docs/streaming.md``); of another
            format, whose index is built the first time, also a file, or a list of files.
        verify: compare every record with its checksum; else damage is returned as it is.
        max_open_bins: how many bin files of a column stay mapped; each takes two descriptors.
        decode: give images, sound and video decoded instead of as bytes; needs their extra.
        allow_pickle: read columns of pickled values. They run what they say: only for data that
            you trust.
        format: the name of another format; else it is recognised.
        cache_dir: keeps blocks of what lies at a url, for all processes. A path is read so, too.
        cache_limit: most bytes in that folder, as a number or ``"200GB"``; 50 GB unless said.
        storage_options: for the store at a url; never written anywhere.
        options: of another format: ``index_dir`` (where its index is kept), ``progress``,
            ``workers``, and its own, see ``docs/formats.md``.

    Raises:
        StorageError: there is nothing at ``path``, or it cannot be read.
        FormatError: what is there is not a dataset, or is damaged, or of a newer version.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> sp.write_split_data(path := tempfile.mkdtemp(), [b"one", b"two", b"three"], splits=2)
        >>> ds = open_dataset(path)
        >>> ds[-1], ds[:2], ds.get_batch([2, 0])
        (b'three', [b'one', b'two'], [b'three', b'one'])
    """
    how = OpenOptions(verify, max_open_bins, decode, allow_pickle)
    if isinstance(path, str | os.PathLike) and is_remote(path, cache_dir):
        refuse_options(path, format, options)
        where = _Remote(os.fspath(path), cache_dir, cache_limit, storage_options)
        return _in_a_store(where, how)
    if cache_limit is not None or storage_options is not None:
        raise TypeError(f"{path!r} is no url: cache_limit and storage_options are for those")
    return _here(path, how, format, options)


def _here(path: Any, how: OpenOptions, format: str | None, options: dict[str, Any]) -> Dataset:
    if isinstance(path, str | os.PathLike) and format is None and _is_ours(path, options):
        directory = os.path.abspath(os.fspath(path))
        return dataset_of(TableRecords(directory, open_all(directory), how))
    if how.allow_pickle:
        options["allow_pickle"] = True
    # Imported late: most programs read no other formats.
    formats = import_module("splitpipe.formats")
    return dataset_of(formats.recognise(path, format=format, **options))


@dataclass(frozen=True, slots=True, repr=False)
class _Remote:
    """Where a dataset at a url is, and its cache."""

    url: str
    cache_dir: str | os.PathLike[str] | None
    cache_limit: int | str | None
    storage_options: Mapping[str, Any] | None


def _in_a_store(where: _Remote, how: OpenOptions) -> Dataset:
    # Imported late, as what reads other formats is: most programs need neither.
    remote = import_module("splitpipe.remote")
    records = remote.open_url(
        where.url,
        cache_dir=where.cache_dir,
        cache_limit=where.cache_limit,
        storage_options=where.storage_options,
        options=how,
    )
    return dataset_of(records)


def is_remote(path: str | os.PathLike[str], cache_dir: object = None) -> bool:
    """Whether what is opened lies in a store, or shall be read as if it did."""
    return bool(_URL.match(os.fspath(path))) or cache_dir is not None


def refuse_options(path: object, format: str | None, options: Mapping[str, Any]) -> None:
    """Refuse what is not there for datasets in a store.

    Raises:
        FormatError: a format was asked for.
        TypeError: there is no such option.
    """
    if format not in (None, "splitpipe"):
        raise FormatError(
            f"{path}: of what lies in a store, only datasets of splitpipe are read where they lie, "
            f"not {format!r}: copy the files here, or convert them to a dataset and upload that"
        )
    if options:
        raise TypeError(f"a splitpipe dataset is opened without {', '.join(options)}")


def _is_ours(path: str | os.PathLike[str], options: Mapping[str, Any]) -> bool:
    if not files.is_there(os.path.join(path, MANIFEST_NAME)):
        return False
    if set(options) - {"index_dir", "progress", "workers"}:
        raise TypeError(f"a splitpipe dataset is opened without {', '.join(options)}")
    return True
