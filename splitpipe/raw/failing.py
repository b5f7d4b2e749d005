"""What is said of a sample that cannot be read.

Responsible for: `Failing`, which says in an error which sample, row, column and file it is about.

Rules:
- an error of ours stays of its kind, with its number and whether it may pass; what user code
  raised stays what it is, with a note;
- nothing that may be secret in a url is in a message.
"""

from __future__ import annotations

from splitpipe.errors import FormatError, RemoteError, StorageError
from splitpipe.raw.locations import Rules, told
from splitpipe.raw.tables import Table

__all__ = ["Failing"]

_LONGEST = 300


class Failing:
    """Says where an error was.

    Args:
        table: of the samples.
        rules: of its files.
    """

    def __init__(self, table: Table, rules: Rules) -> None:
        self._table = table
        self._rules = rules

    def told(self, error: Exception, sample: int, row: int, column: str, text: object) -> Exception:
        """The error to raise for a sample.

        Args:
            error: what happened.
            sample: its index.
            row: of the table.
            column: of the sample.
            text: what the table says of where the file lies.
        """
        key = self._table.key_of(row)
        named = "" if key is None else f", key {key!r}"
        where = (
            f"sample {sample} (row {row} of {self._table.name}{named}), column {column!r}, "
            f"{told(str(text))!r:.{_LONGEST}}"
        )
        if isinstance(error, StorageError):
            made = type(error)(error.errno, f"{where}: {error.strerror or error}")
            if isinstance(error, RemoteError) and isinstance(made, RemoteError):
                made.transient, made.retry_after_s = error.transient, error.retry_after_s
            return made
        if isinstance(error, FormatError):
            return type(error)(f"{where}: {error}")
        error.add_note(f"while reading {where}")
        return error
