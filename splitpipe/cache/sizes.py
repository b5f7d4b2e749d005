"""Sizes as people write them, and where a cache lies unless they say.

Responsible for: text to bytes and bytes to text; the default folder.
"""

from __future__ import annotations

import os
import re
from typing import Final

from splitpipe.errors import FormatError

__all__ = ["default_directory", "format_nbytes", "parse_nbytes"]

_UNITS: Final = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000 ** (i + 1) for i, letter in enumerate("KMGTP")},
    **{f"{letter}IB": 1024 ** (i + 1) for i, letter in enumerate("KMGTP")},
    **{letter: 1024 ** (i + 1) for i, letter in enumerate("KMGTP")},
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)
_MOST = 1 << 62


def parse_nbytes(size: int | str) -> int:
    """A number of bytes, given as one or as text.

    ``kB, MB, GB, TB, PB`` are powers of 1000; ``KiB ... PiB``, and the letters alone, of 1024.

    Raises:
        FormatError: it is no size.

    Example:
        >>> parse_nbytes("50GB"), parse_nbytes("1.5 MiB"), parse_nbytes(4096), parse_nbytes("2k")
        (50000000000, 1572864, 4096, 2048)
    """
    found: float = -1
    if isinstance(size, str):
        matched = _SIZE.fullmatch(size)
        unit = _UNITS.get(matched[2].upper()) if matched else None
        if matched and unit is not None:
            whole = matched[1].isdigit() and len(matched[1]) < 20
            found = int(matched[1]) * unit if whole else int(float(matched[1]) * unit)
    elif type(size) is int:
        found = size
    if not 0 <= found <= _MOST:
        raise FormatError(f"{size!r} is no size: write 50GB, 10 GiB, or a number of bytes")
    return int(found)


def format_nbytes(nbytes: int) -> str:
    """A size for people, in powers of 1000.

    Example:
        >>> format_nbytes(999), format_nbytes(1_500_000), format_nbytes(50_000_000_000)
        ('999 B', '1.5 MB', '50.0 GB')
    """
    if nbytes < 1000:
        return f"{nbytes} B"
    value = float(nbytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} PB"


def default_directory() -> str:
    """Where a cache lies unless somebody says: the folder of this user for such things.

    ``$SPLITPIPE_CACHE``, else ``$XDG_CACHE_HOME/splitpipe``, else ``~/.cache/splitpipe``.
    """
    own = os.environ.get("SPLITPIPE_CACHE")
    if own:
        return os.path.abspath(os.path.expanduser(own))
    # An XDG path that is relative is to be ignored, says the specification.
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "splitpipe")
