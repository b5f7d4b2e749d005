"""The file in which failed items are written down.

Responsible for: `append`, one line, and `read_quarantine`, all of them.

Rules:
- a line is one item, in JSON, and is appended by a single ``write`` to a file that was opened for
  appending: any number of processes may write to one file, and lines never mix (on local file
  systems; NFS does not promise that);
- a writer that is killed in mid-write may leave a part of a line, at the end or before the next
  line. Every line begins in the same way, so that the whole lines behind such a part are found; the
  part itself is left out, and counted;
- what is read is each item once: a unit of work that was done again fails again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from splitpipe.errors import FormatError, StorageError
from splitpipe.pipeline.stages.failed import FailedItem

__all__ = ["Quarantine", "append", "check_writable", "line_of", "read_quarantine"]

_BEGIN: Final = b'{"quarantine":1,'
"""How every line begins. It cannot stand inside of one: there its quotes would be escaped."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What a quarantine file holds.

    Attributes:
        items: each once, in the order in which they were written.
        lines: whole lines that there are, those that say the same again among them.
        torn: parts of lines, whose writers were killed.
    """

    items: tuple[FailedItem, ...]
    lines: int = 0
    torn: int = 0

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Quarantine:
        """Read a whole file.

        Raises:
            StorageError: it cannot be read.
            FormatError: it is no such file.
        """
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise StorageError(error.errno, error.strerror, os.fspath(path)) from error
        found: dict[tuple[object, ...], FailedItem] = {}
        lines = torn = 0
        for line in data.split(b"\n"):
            if not line:
                continue
            # What stands before the last beginning is a part of another line.
            before, begin, rest = line.rpartition(_BEGIN)
            torn += bool(before)
            try:
                if not begin:
                    raise ValueError("no line of a quarantine")
                item = FailedItem.of_json(b"{" + rest)
            except (ValueError, TypeError):
                torn += 1
                continue
            lines += 1
            found.setdefault((item.run, item.identity), item)
        if torn and not lines and len(data) > len(_BEGIN) and not data.startswith(_BEGIN):
            raise FormatError(
                f"{os.fspath(path)} is no quarantine file: none of its lines is one that "
                "on_error=sp.quarantine(...) writes"
            )
        return cls(tuple(found.values()), lines, torn)


def read_quarantine(path: str | os.PathLike[str]) -> list[FailedItem]:
    """Return the items that ``on_error=sp.quarantine(path)`` wrote down, each once.

    Lines that a killed program left unfinished are left out.

    Raises:
        StorageError: the file cannot be read.
        FormatError: it is no such file.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = f"{tempfile.mkdtemp()}/bad.jsonl"
        >>> halves = sp.Pipeline([4, 0, 2]).map(lambda x: 8 // x, on_error=sp.quarantine(path))
        >>> list(halves), [str(failed) for failed in read_quarantine(path)]
        ([2, 4], ['item 1: ZeroDivisionError: integer division or modulo by zero'])
    """
    return list(Quarantine.read(path).items)


def append(path: str, failed: FailedItem, *, sync: bool = False) -> None:
    """Write down one item.

    Args:
        path: of the file.
        failed: the item.
        sync: wait until it is on the disk.

    Raises:
        StorageError: it cannot be written; the item is in no file then, or a part of it is.
    """
    line = line_of(failed)
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            written = os.write(file, line)
            if written < len(line):  # the disk is full, usually: then this one says so
                os.write(file, b"\n" + line)
            if sync:
                os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise StorageError(
            error.errno, f"{error.strerror}: the quarantine cannot be written", path
        ) from error


def line_of(failed: FailedItem) -> bytes:
    """Return the line of one item, its end included."""
    return _BEGIN + failed.to_json().encode()[1:] + b"\n"


def check_writable(path: str) -> None:
    """Find out, before anything starts, whether a quarantine can be written; nothing is made.

    Raises:
        StorageError: it cannot.
    """
    folder = os.path.dirname(path) or "."
    if os.path.exists(path):
        reason = "it is a folder" if os.path.isdir(path) else "it is read-only"
        fine = not os.path.isdir(path) and os.access(path, os.W_OK)
    else:
        reason = f"{folder} is {'read-only' if os.path.isdir(folder) else 'no folder'}"
        fine = os.path.isdir(folder) and os.access(folder, os.W_OK)
    if not fine:
        raise StorageError(f"the quarantine {path} cannot be written: {reason}")
