"""Finding a module in a generation.

Responsible for: `find`, from a kind and a name to a `Call`, in the process that uses it.

Rules:
- what a generation has was written beside it when it was described; without that, its files are
  imported one after the other until one has it;
- a module and its parameters are made here once, so that what is wrong with them is said before
  anything is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from splitpipe.errors import InvalidRequest, NotFound
from splitpipe.server.modules.loading import Call, load, marked, stems

__all__ = ["INDEX", "find"]

INDEX = ".described.json"
"""In the folder of a generation: what is in it."""


def find(folder: Path | None, kind: str, name: str, params: Mapping[str, Any]) -> Call:
    """Return what is called for a module.

    Args:
        folder: of the generation; None: there are no modules.
        kind: of the module.
        name: of the module.
        params: values for its parameters.

    Raises:
        NotFound: there is no such module, or its file cannot be imported.
        InvalidRequest: it does not take these values.
    """
    what = f"{kind} {name!r}"
    if folder is None:
        raise NotFound(f"there is no {what}: this service has no modules folder")
    for stem in _candidates(folder, kind, name):
        call = Call(str(folder), stem, kind, name, dict(params))
        try:
            call.made()
        except InvalidRequest:
            raise
        except Exception as error:
            error.add_note(f"{what} of {stem}.py")
            raise
        return call
    raise NotFound(f"there is no {what} in {folder}; the list of modules says what there is")


def _candidates(folder: Path, kind: str, name: str) -> Iterator[str]:
    try:
        told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        yield from _searched(folder, kind, name)
        return
    for one in told["modules"]:
        if one["kind"] == kind and one["name"] == name:
            yield Path(one["file"]).stem
            return


def _searched(folder: Path, kind: str, name: str) -> Iterator[str]:
    for stem in stems(folder):
        try:
            module = load(str(folder), stem)
        except Exception:
            continue
        if any(mark == (kind, name) for mark, _ in marked(module)):
            yield stem
            return
