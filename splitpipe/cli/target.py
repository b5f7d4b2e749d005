"""Something of the user's program, named on a command line.

Responsible for: `load_object`: ``module:name`` or ``path/to/file.py:name`` to the object itself.

Rules:
- modules are looked for in the working directory first, as by ``python -m``;
- a file is imported under its own name, with its folder on the path: worker processes, which
  inherit the path, find its functions in the same way;
- what is wrong is said in one line; an error inside of the user's module is its own.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from splitpipe.errors import FormatError

__all__ = ["load_object"]


def load_object(text: str, kind: str = "pipeline") -> Any:
    """Return what ``module:name`` names; ``name`` may have dots.

    Args:
        text: as on the command line.
        kind: what is expected, in words, for messages.

    Raises:
        FormatError: there is no such module, or nothing of this name in it.

    Example:
        >>> load_object("os:path.join", "function")("a", "b")
        'a/b'
    """
    module_name, colon, name = text.rpartition(":")
    if not colon or not module_name or not name:
        raise FormatError(
            f"{text!r} does not name a {kind}: say MODULE:NAME or PATH/FILE.py:NAME, such as "
            f"train:{kind}"
        )
    found: Any = _module(module_name)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            known = sorted(n for n in vars(found) if not n.startswith("_")) if _has(found) else []
            raise FormatError(
                f"{module_name} has no {name!r}; it has {', '.join(known) or 'nothing'}"
            ) from None
    return found


def _has(value: Any) -> bool:
    return hasattr(value, "__dict__")


def _module(name: str) -> Any:
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise FormatError(f"there is no file {name}")
        folder, name = str(path.resolve().parent), path.stem
    else:
        folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that is missing further down is the user's own error.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise FormatError(
            f"there is no module {name!r} here (in {folder}): say the path of its file, "
            f"PATH/{name.rpartition('.')[2]}.py:NAME"
        ) from None
