"""Which format a path holds.

Responsible for: the list of formats, and `recognise`, which asks each of them and opens the source
with the one that knows it.

Rules:
- nothing is guessed: a source that no format knows, or that two know, is refused with the names
  to choose from;
- a layout with a file of its own that says what it is (``Format.marked``) goes before formats
  that know their files by the suffix alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from splitpipe.errors import FormatError
from splitpipe.formats.base import Format, Indexing, PathLike, Progress, Source

if TYPE_CHECKING:
    from splitpipe.storage.base import Records

__all__ = ["FORMATS", "load", "recognise", "which"]

# The formats, and the module below this package that has each as FORMAT.
_MODULES = {
    "jsonl": "lines.jsonl",
    "csv": "lines.csv",
    "text": "lines.text",
    "parquet": "columnar.parquet",
    "arrow": "columnar.arrow",
    "tar": "shards.tar",
    "mds": "shards.mds",
    "splitdataloader": "seeds.splitdataloader",
    "data_forager": "seeds.data_forager",
    "synthefy": "seeds.synthefy",
}
FORMATS = tuple(_MODULES)


def load(name: str) -> Format:
    """The format of a name.

    Raises:
        FormatError: there is none.
    """
    if name not in FORMATS:
        raise FormatError(f"there is no format {name!r}: format= is one of {', '.join(FORMATS)}")
    found: Format = import_module(f"splitpipe.formats.{_MODULES[name]}").FORMAT
    return found


def which(source: Source) -> Format:
    """The one format that knows a source.

    Raises:
        FormatError: none does, or several do.
    """
    known = [form for form in map(load, FORMATS) if form.recognises(source)]
    known = [form for form in known if form.marked] or known
    if len(known) == 1:
        return known[0]
    place = source.root if source.folder or len(source.paths) > 1 else source.paths[0]
    if known:
        names = " and ".join(f"{form.name} ({form.looks_like})" for form in known)
        raise FormatError(
            f"{place} may be {names}: say which with format={known[0].name!r} or "
            f"format={known[1].name!r}"
        )
    raise FormatError(
        f"{place} is not a splitpipe dataset, and no format here knows it by its names and first "
        "bytes: "
        + "; ".join(f"{form.name}: {form.looks_like}" for form in map(load, FORMATS))
        + ". Say format=NAME if it is one of these under another name"
    )


def recognise(
    path: PathLike | Sequence[PathLike],
    *,
    index_dir: PathLike | None = None,
    format: str | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    **options: Any,
) -> Records:
    r"""Open foreign data where it lies.

    Args:
        path: a folder, a file, or a list of files.
        index_dir: where the index is kept; else in a folder ``.splitpipe`` beside the data.
        format: the format's name; else it is recognised.
        progress: called with (bytes done, bytes in all) while an index is built.
        workers: how many processors may build the index; all of them unless said.
        options: the format's own, see ``docs/formats.md``.

    Raises:
        FormatError: no format knows the source or several do, or it is damaged.
        StorageError: it is not there or cannot be read, or the index cannot be written.
        TypeError: the format has no such option.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.jsonl")
        >>> _ = path.write_text('{"n": 1}\n{"n": 2}\n')
        >>> records = recognise(path)
        >>> len(records)
        2
        >>> records.close()
    """
    source = Source.at(path)
    form = which(source) if format is None else load(format)
    _check_options(form, options)
    folder = None if index_dir is None else os.path.abspath(os.fspath(index_dir))
    return form.open(source, Indexing(folder, progress, workers), **options)


def _check_options(form: Format, options: dict[str, Any]) -> None:
    known = form.takes()
    for name in options:
        if name not in known:
            takes = f"its options are {', '.join(known)}" if known else "it has no options"
            raise TypeError(f"format {form.name!r} has no option {name!r}: {takes}")
