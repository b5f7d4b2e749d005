"""Describing the files of a modules folder, in a process of its own.

Responsible for: `described`, which asks such a process what there is; and being that process
(``python -m splitpipe.server.modules.describing``).

Rules:
- one file after the other: one that raises, hangs or ends the process is an error of its own, and
  those behind it are described by another process;
- of two modules of one kind and name, the first one counts; the other is an error that names it.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from splitpipe.server.modules.apart import ChildFailed, answer, ask
from splitpipe.server.modules.loading import load, marked, stems
from splitpipe.server.modules.marking import Mark
from splitpipe.server.modules.parameters import parameters_of

__all__ = ["described"]

_NAME = "splitpipe.server.modules.describing"
_TRACEBACK_CHARACTERS = 8_000
_SECTIONS = re.compile(r"^(?:Args|Attributes|Returns|Raises|Examples?):\n", re.MULTILINE)


def described(folder: Path, *, file_s: float = 30.0) -> dict[str, list[dict[str, Any]]]:
    """Return what the files of a folder define, and what is wrong with them.

    Args:
        folder: of a generation.
        file_s: most seconds that one file may take to be imported.

    Returns:
        ``modules``: each with ``name``, ``kind``, ``doc``, ``parameters``, ``file`` and ``line``;
        ``errors``: each with ``file``, ``error`` and ``traceback``.
    """
    left = stems(folder)
    modules: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    while left:
        try:
            for told in ask(_NAME, {"folder": str(folder), "stems": left}, silence_s=file_s):
                left.remove(told["stem"])
                modules += told["modules"]
                errors += told["errors"]
            if left:
                raise ChildFailed("its process ended without a word")
        except ChildFailed as error:
            errors.append(_error(left.pop(0), str(error)))
    return _unique(modules, errors)


def _unique(
    modules: list[dict[str, Any]], errors: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for module in modules:
        first = kept.setdefault((module["kind"], module["name"]), module)
        if first is not module:
            text = (
                f"{module['kind']} {module['name']!r} in line {module['line']} is there already, "
                f"in {first['file']} line {first['line']}; give one of them another name"
            )
            errors.append({"file": module["file"], "error": text, "traceback": ""})
    return {"modules": list(kept.values()), "errors": errors}


def _describe(request: Any) -> Iterator[Any]:
    for stem in request["stems"]:
        try:
            module = load(request["folder"], stem)
        except (Exception, SystemExit) as error:
            yield {"stem": stem, "modules": [], "errors": [_raised(stem, error)]}
            continue
        yield {"stem": stem, **_file(stem, module)}


def _file(stem: str, module: ModuleType) -> dict[str, list[dict[str, Any]]]:
    modules, errors = [], []
    for mark, made in marked(module):
        try:
            modules.append(_module(stem, mark, made))
        except Exception as error:
            errors.append(_raised(stem, error))
    return {"modules": modules, "errors": errors}


def _module(stem: str, mark: Mark, made: Any) -> dict[str, Any]:
    return {
        "name": mark.name,
        "kind": mark.kind,
        "doc": _doc(made),
        "parameters": parameters_of(made),
        "file": f"{stem}.py",
        "line": inspect.getsourcelines(made)[1],
    }


def _doc(made: Any) -> str:
    """Return what a docstring says before its sections."""
    if isinstance(made, type) and "__doc__" not in vars(made):
        return ""
    text = inspect.getdoc(made) or ""
    return _SECTIONS.split(text)[0].strip()


def _raised(stem: str, error: BaseException) -> dict[str, Any]:
    told = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]
    return _error(stem, f"{type(error).__name__}: {error}", told)


def _error(stem: str, text: str, told: str = "") -> dict[str, Any]:
    return {"file": f"{stem}.py", "error": text, "traceback": told}


if __name__ == "__main__":
    answer(_describe)
