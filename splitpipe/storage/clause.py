r"""Clauses of SQL from callers, before SQLite sees them.

Responsible for: `checked_clause`, which makes sure that a clause is one expression, and
`readers_only`, the authorizer that lets SQLite do nothing but read the catalog.

The clause is put between parentheses, ``SELECT row FROM records WHERE (clause)``. What could leave
them is refused here, by SQLite's own rules for tokens: a parenthesis that closes more than was
opened, a semicolon, a comment. Inside of them only an expression fits, subqueries included, and
those meet the authorizer.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection
from typing import Final

from splitpipe.errors import FormatError

__all__ = ["checked_clause", "readers_only"]

_TOKEN: Final = re.compile(
    r"""
      (?P<string>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    | (?P<comment>--|/\*)
    | (?P<open>\()
    | (?P<close>\))
    | (?P<wrong>[;'"`\[\0])
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
# A longer clause is no question; SQLite would take a thousand times as much.
_LONGEST: Final = 100_000

# Tables that a clause may read, beside the records: the elements of JSON arrays and objects.
_TABLES: Final = frozenset({"records", "json_each", "json_tree"})
# Functions without effects whose value follows from their arguments.
_FUNCTIONS: Final = frozenset(
    """
    abs avg ceil ceiling char coalesce concat concat_ws count cume_dist date datetime dense_rank
    exp first_value floor format glob group_concat hex ifnull iif instr json json_array
    json_array_length json_error_position json_extract json_group_array json_group_object
    json_object json_patch json_quote json_remove json_replace json_set json_type json_valid
    julianday lag last_value lead length like likelihood likely ln log log10 log2 lower ltrim max
    min mod nth_value ntile nullif octet_length percent_rank pi pow power printf quote radians rank
    replace round row_number rtrim sign sqrt strftime string_agg substr substring sum time
    timediff total trim trunc typeof unhex unicode unixepoch unlikely upper
    current_date current_time current_timestamp -> ->>
    """.split()  # noqa: SIM905  a list of words is read more easily than one of literals
)


def checked_clause(clause: str, names: Collection[str]) -> str:
    """A clause that is one expression and cannot leave its parentheses.

    Args:
        clause: SQL.
        names: what may stand in double quotes: SQLite takes any other word there for text, so
            that a mistyped name would quietly be compared as such.

    Raises:
        FormatError: it is not; the message says where.

    Example:
        >>> checked_clause("length > ? AND (lang = 'a;b' OR lang IS NULL)", ["length", "lang"])
        "length > ? AND (lang = 'a;b' OR lang IS NULL)"
        >>> checked_clause("1) UNION SELECT (2", [])
        Traceback (most recent call last):
        splitpipe.errors.FormatError: the clause '1) UNION SELECT (2' closes a parenthesis ...
    """
    if not isinstance(clause, str):
        raise FormatError(f"a clause is a string of SQL, not {type(clause).__name__}")
    if not clause.strip() or len(clause) > _LONGEST:
        raise FormatError(
            f"a clause has 1 to {_LONGEST} characters, this one {len(clause)}: values belong in "
            "the parameters, one for every ?"
        )
    if clause.split(None, 1)[0].lower() in ("select", "with", "values", "where"):
        raise _refused(clause, "is a whole statement: give what stands after WHERE", 0)
    known = {name.lower() for name in names}
    depth = 0
    for token in _TOKEN.finditer(clause):
        kind, text = token.lastgroup, token.group()
        if kind in ("comment", "wrong"):
            what = (
                "holds a comment" if kind == "comment" else f"holds {text!r}, which is not closed"
            )
            if text in (";", "\0"):
                what = f"holds {text!r}: it must be one expression"
            raise _refused(clause, what, token.start())
        if kind == "quoted" and text[1:-1].lower() not in known:
            raise _refused(
                clause, f"names {text}, which is no column (text is put in '...')", token.start()
            )
        depth += (kind == "open") - (kind == "close")
        if depth < 0:
            raise _refused(clause, "closes a parenthesis that it did not open", token.start())
    if depth:
        raise _refused(clause, "does not close every parenthesis", len(clause))
    return clause


def _refused(clause: str, what: str, place: int) -> FormatError:
    return FormatError(f"the clause {clause!r:.200} {what} (at character {place})")


def readers_only(
    action: int, first: str | None, second: str | None, _database: str | None, _inner: str | None
) -> int:
    """SQLite's question whether a statement may do something: reading, and nothing else."""
    if action == sqlite3.SQLITE_SELECT:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_READ and first in _TABLES:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and second is not None and second.lower() in _FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
