"""Libraries that need not be installed.

Responsible for: `imported`, which says what to install where one is missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["imported"]


def imported(module: str, *, extra: str, by: str) -> Any:
    """Import a library when it is needed, not before.

    Args:
        module: its name in Python.
        extra: the extra that brings it.
        by: what needs it, for the message.

    Raises:
        ImportError: it is not installed, or lacks something itself.

    Example:
        >>> imported("json", extra="table", by="a table").dumps([1])
        '[1]'
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        missing = "" if error.name in (None, module, package) else f" (it lacks {error.name})"
        text = f"{by} needs {package}{missing}: pip install 'splitpipe[{extra}]'"
        raise type(error)(text, name=error.name) from error
