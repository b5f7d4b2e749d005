"""From what a user names to a table.

Responsible for: telling files of tables, folders and lists of files apart, here and on stores;
expanding patterns; and what relative paths in each are relative to.

Rules:
- nothing is guessed: what a name does not say (``kind=``, ``format=``) is asked for;
- what makes up a table is told here once: it is a snapshot, and its identity is that of its rows.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from splitpipe.dataset import Dataset
from splitpipe.errors import FormatError, StorageError
from splitpipe.formats.base import natural_key, suffix_of
from splitpipe.formats.shards.tar import KEY
from splitpipe.raw.copies import Copies
from splitpipe.raw.fetching import Access
from splitpipe.raw.folders import grouped, names_below
from splitpipe.raw.locations import is_url, placed, told
from splitpipe.raw.tables import SUFFIXES, Table, memory_table, print_of, read_files
from splitpipe.storage import files
from splitpipe.storage.base import Records

__all__ = ["KINDS", "TableOptions", "open_table"]

KINDS: Final = ("table", "folder", "files")
_LISTS: Final = (".txt", ".list", ".lst")
PATH: Final = "path"
"""The column of a list of files."""

_LONGEST_LIST: Final = 1 << 32
_WILD: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How a table is read.

    Attributes:
        kind: ``"table"``, ``"folder"`` or ``"files"``; told by the name unless given.
        format: of its files; recognised unless given.
        base: what paths in it are relative to; its folder unless given.
        key: the column that names samples.
        index_dir: where indices of local tables are kept.
        more: options of the format.
    """

    kind: str | None = None
    format: str | None = None
    base: str | None = None
    key: str | None = None
    index_dir: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def open_table(source: Any, options: TableOptions, access: Access) -> Table:
    """The table that a user names.

    Args:
        source: a path, a url, a pattern of those; a folder; a list of rows or of files; a dataset.
        options: how it is read.
        access: has the stores.

    Raises:
        StorageError: it is not there, or cannot be read.
        FormatError: it is no table, or nothing says what it is.
    """
    if options.kind is not None and options.kind not in KINDS:
        raise FormatError(f"kind= is one of {', '.join(KINDS)}, not {options.kind!r}")
    if isinstance(source, Dataset):
        return _of_dataset(source, options)
    if isinstance(source, str | os.PathLike):
        return _of_name(os.fspath(source), options, access)
    rows = list(source)
    if all(isinstance(row, Mapping) for row in rows) and options.kind in (None, "table"):
        table = memory_table(rows)
        return _made(table, "the list of rows", os.getcwd(), _digest(rows), options)
    if not all(isinstance(row, str | os.PathLike) for row in rows):
        raise FormatError("a list is one of rows (dicts) or of paths and urls (strings)")
    names = [os.fspath(row) for row in rows]
    if options.kind == "table":
        return _of_files(_expanded(names, access), options, access)
    return _of_list(names, "the list of files", os.getcwd(), options)


def _of_dataset(source: Dataset, options: TableOptions) -> Table:
    records = source.records
    manifest = getattr(records, "manifest", None)
    known = getattr(records, "identity", None) or (
        len(records) if manifest is None else (manifest.dataset.hex(), manifest.generation)
    )
    base = getattr(records, "path", None) or os.getcwd()
    table = _made(records, repr(source), str(base), _digest(known), options)
    return replace(table, borrowed=True)


def _of_name(name: str, options: TableOptions, access: Access) -> Table:
    kind = options.kind or _kind_of(name, options.format)
    if kind == "folder":
        return _of_folder(name, options, access)
    paths = _expanded([name], access)
    if kind == "table":
        return _of_files(paths, options, access)
    lines: list[str] = []
    for path in paths:
        text = _read(path, access).decode("utf-8-sig", "surrogateescape")
        lines += [line for line in text.splitlines() if line.strip()]
    return _of_list(lines, told(name), _folder_of(paths[0]), options)


def _kind_of(name: str, format: str | None) -> str:
    if name.endswith("/") or (not is_url(name) and os.path.isdir(name)):
        return "folder"
    suffix = suffix_of(name.partition("?")[0] if name.startswith("http") else name)
    if format is not None or suffix in SUFFIXES:
        return "table"
    if suffix in _LISTS:
        return "files"
    if not is_url(name) and not _WILD.search(name) and not os.path.exists(name):
        raise StorageError(errno.ENOENT, "there is no such table", name)
    raise FormatError(
        f"{told(name)!r} may be anything: tables end in {', '.join(SUFFIXES)}, lists of files in "
        f"{', '.join(_LISTS)}, folders in '/'; else say kind='table', 'folder' or 'files'"
    )


def _of_list(names: Sequence[str], name: str, base: str, options: TableOptions) -> Table:
    if not names:
        raise FormatError(f"{name} names no files")
    table = memory_table([{PATH: one} for one in names])
    return _made(table, name, base, _digest(list(names)), options, files=(PATH,))


def _of_folder(name: str, options: TableOptions, access: Access) -> Table:
    if is_url(name) and not name.startswith("file://"):
        at = placed(name if name.endswith("/") else name + "/")
        found = [key[len(at.key) :] for key, _ in access.open(at.root).list(at.key)]
        place = name
    else:
        place = os.path.abspath(_local(name))
        found = list(names_below(place))
    table = grouped(found, told(place))
    columns = tuple(column for column in table.schema if column != KEY)
    rows = table.read(np.arange(len(table)), tuple(table.schema))
    named = options if options.key else replace(options, key=KEY)
    return _made(table, told(place), place, _digest(rows), named, files=columns)


def _of_files(paths: Sequence[str], options: TableOptions, access: Access) -> Table:
    remote = [path for path in paths if is_url(path)]
    if remote and len(remote) != len(paths):
        raise FormatError("tables are all here or all remote: open them apart and concat them")
    name = told(paths[0]) if len(paths) == 1 else f"{told(paths[0])} and {len(paths) - 1} more"
    if remote:
        copies = Copies(paths, access, format=options.format, options=options.more)
        records, prints = copies.open(), copies.prints
    else:
        copies = None
        records = read_files(
            paths, format=options.format, index_dir=options.index_dir, options=options.more
        )
        prints = [print_of(path) for path in paths]
    known = _digest([*prints, len(records)])
    return _made(records, name, _folder_of(paths[0]), known, options, copies=copies)


def _made(
    records: Records,
    name: str,
    base: str,
    identity: str,
    options: TableOptions,
    files: tuple[str, ...] = (),
    copies: Copies | None = None,
) -> Table:
    if options.key is not None and options.key not in records.schema:
        raise FormatError(
            f"there is no column {options.key!r} for key=; columns: {', '.join(records.schema)}"
        )
    return Table(records, name, options.base or base, identity, options.key, files, copies)


def _digest(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


# --- names ----------------------------------------------------------------------------------------


def _local(name: str) -> str:
    if not is_url(name):
        return name
    at = placed(name)
    return os.path.join(at.root, at.key)


def _folder_of(name: str) -> str:
    """What paths in a file are relative to: the folder it lies in."""
    if not is_url(name):
        return os.path.dirname(os.path.abspath(name))
    at = placed(name)
    folder = at.key.partition("?")[0].rpartition("/")[0]
    return f"{at.root}{folder}/" if folder else at.root


def _expanded(names: Sequence[str], access: Access) -> list[str]:
    """Names of files: patterns as what they stand for, in natural order.

    Raises:
        StorageError: a pattern stands for nothing.
    """
    found: list[str] = []
    for name in names:
        name = _local(name) if name.startswith("file://") else name
        web = name.startswith(("http://", "https://"))
        if not _WILD.search(name.replace("?", "") if web else name):
            found.append(name if is_url(name) else os.path.abspath(name))
            continue
        if is_url(name):
            some = _listed(name, access)
        else:
            some = [
                p for p in glob.glob(os.path.abspath(name), recursive=True) if os.path.isfile(p)
            ]
        if not some:
            raise StorageError(errno.ENOENT, "no file is named like this", told(name))
        found += sorted(some, key=natural_key)
    return found


def _listed(name: str, access: Access) -> list[str]:
    at = placed(name)
    wild = _WILD.search(at.key)
    assert wild is not None
    prefix = at.key[: at.key.rfind("/", 0, wild.start()) + 1]
    pattern = re.compile(_pattern(at.key), re.DOTALL)
    keys = (key for key, _ in access.open(at.root).list(prefix))
    return [at.root + key for key in keys if pattern.fullmatch(key)]


def _pattern(text: str) -> str:
    r"""A pattern of names as a regular expression: only ``**`` goes through folders.

    Example:
        >>> _pattern("a/*.csv"), _pattern("a/**/b?.csv")
        ('a/[^/]*\\.csv', 'a/(?:.*/)?b[^/]\\.csv')
    """
    made, at = "", 0
    while at < len(text):
        if text.startswith("**/", at):
            made, at = made + "(?:.*/)?", at + 3
            continue
        one = text[at]
        end = text.find("]", at + 2)
        if one == "[" and end > 0:
            inside = text[at + 1 : end].replace("\\", r"\\")
            made += f"[{'^' + inside[1:] if inside[0] == '!' else inside}]"
            at = end + 1
            continue
        made += {"*": "[^/]*", "?": "[^/]"}.get(one, re.escape(one))
        at += 1
    return made


def _read(name: str, access: Access) -> bytes:
    if not is_url(name):
        return files.read_whole(name, limit=_LONGEST_LIST)
    at = placed(name)
    return access.open(at.root).read(at.key)
