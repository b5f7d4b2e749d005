"""Names of columns for names that others gave.

Responsible for: making column names, which are identifiers, of file suffixes, table headers and
what else others use; and `needs`, for what an extra brings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from splitpipe.errors import FormatError

__all__ = ["column_names", "needs"]

_LENGTH = 120  # a column's name has at most 128 characters; the rest is for a number
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_]")


def column_names(given: Iterable[str]) -> dict[str, str]:
    """A column name for each of several names, in their order.

    What an identifier cannot hold becomes ``_``; two names that become the same are told apart by a
    number, the first keeps it bare.

    Returns:
        column name -> given name.

    Example:
        >>> column_names(["jpg", "seg.png", "seg-png", "2d.npy"])
        {'jpg': 'jpg', 'seg_png': 'seg.png', 'seg_png_2': 'seg-png', '_2d_npy': '2d.npy'}
    """
    given = list(given)
    # Who has a good name already keeps it.
    taken = {name for name in given if _plain(name) == name}
    named: dict[str, str] = {}
    for name in given:
        column = plain = _plain(name)
        number = 1
        while column in named or (column in taken and column != name):
            number += 1
            column = f"{plain}_{number}"
        named[column] = name
    return named


def _plain(name: str) -> str:
    plain = _FORBIDDEN.sub("_", name)[:_LENGTH]
    return plain if plain and not plain[0].isdigit() else f"_{plain}"


@contextmanager
def needs(package: str, extra: str, what: str) -> Iterator[None]:
    """Say which extra brings a package that is not installed, where it is imported late."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise FormatError(
            f"to read {what}, {package} is needed: pip install 'splitpipe[{extra}]'"
        ) from error
