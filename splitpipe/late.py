"""Names of a package that are imported when they are first used.

Responsible for: `late`. A worker process, or a program that only writes datasets, loads no more
than it needs: what it costs is paid once in every process that is started afresh.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["late"]


def late(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` (PEP 562) of a package whose names have their homes elsewhere.

    Args:
        package: its ``__name__``.
        homes: the module of each name: a whole name, or one that begins with a dot, which lies in
            the package.

    Example:
        >>> get = late("json", {"JSONDecoder": ".decoder"})
        >>> get("JSONDecoder").__name__
        'JSONDecoder'
    """

    def get(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home, package), name)
        setattr(sys.modules[package], name, value)  # it is not asked for again
        return value

    return get
