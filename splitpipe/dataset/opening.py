"""From a path to a dataset.

Responsible for: `open_dataset`, which tells a dataset of our own format from data of another, and
opens either.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from splitpipe.dataset.dataset import Dataset, dataset_of
from splitpipe.storage import files
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.snapshot import open_all
from splitpipe.storage.table import OpenOptions, TableRecords

__all__ = ["open_dataset"]


def open_dataset(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    verify: bool = True,
    max_open_bins: int = 256,
    decode: bool = False,
    allow_pickle: bool = False,
    format: str | None = None,
    **options: Any,
) -> Dataset:
    """Open a dataset: one that a `DatasetWriter` wrote, or data of another format in place.

    One of our own opens in milliseconds, for any number of records. Of another format, an index
    is built the first time, and kept.

    Args:
        path: its directory; of another format also a file, or a list of files.
        verify: compare every record with its checksum; else damage is returned as it is.
        max_open_bins: how many bin files of a column stay mapped; each takes two descriptors.
        decode: give images, sound and video decoded instead of as bytes; needs their extra.
        allow_pickle: read columns of pickled values. They run what they say: only for data that
            you trust.
        format: the name of another format; else it is recognised.
        options: of another format: ``index_dir`` (where its index is kept), ``progress``,
            ``workers``, and its own, see ``docs/formats.md``.

    Raises:
        StorageError: there is nothing at ``path``, or it cannot be read.
        FormatError: what is there is not a dataset, or is damaged, or of a newer version.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> with sp.DatasetWriter(path := tempfile.mkdtemp(), bins=2) as writer:
        ...     writer.write_many([b"one", b"two", b"three"])
        >>> ds = open_dataset(path)
        >>> ds[-1], ds[:2], ds.get_batch([2, 0])
        (b'three', [b'one', b'two'], [b'three', b'one'])
    """
    if isinstance(path, str | os.PathLike) and format is None and _is_ours(path, options):
        how = OpenOptions(
            verify=verify, max_open_bins=max_open_bins, decode=decode, allow_pickle=allow_pickle
        )
        directory = os.path.abspath(os.fspath(path))
        return dataset_of(TableRecords(directory, open_all(directory), how))
    if allow_pickle:
        options["allow_pickle"] = True
    # Imported late: most programs read no other formats.
    formats = import_module("splitpipe.formats")
    return dataset_of(formats.recognise(path, format=format, **options))


def _is_ours(path: str | os.PathLike[str], options: Mapping[str, Any]) -> bool:
    if not files.is_there(os.path.join(path, MANIFEST_NAME)):
        return False
    if set(options) - {"index_dir", "progress", "workers"}:
        raise TypeError(f"a splitpipe dataset is opened without {', '.join(options)}")
    return True
