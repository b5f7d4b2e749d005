"""Modules at work: from a name and values to something that can be called.

Responsible for: importing files of a modules folder, and `Call`, a module with its parameters as a
value that travels to workers.

Rules:
- files are modules of one package, `PACKAGE`, whose folder is that of one generation: they import
  each other with ``from . import other``; a process has one such folder at a time;
- a `Call` travels as names and values, and is made where it is first called;
- nothing is looked for outside of the folder.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from splitpipe.server.modules.marking import Mark, mark_of
from splitpipe.server.modules.parameters import arguments_of

__all__ = ["PACKAGE", "Call", "install", "load", "marked", "stems"]

PACKAGE = "splitpipe_modules"


def install(folder: str) -> None:
    """Let `PACKAGE` be the files of `folder`."""
    package = sys.modules.get(PACKAGE)
    if package is not None and list(package.__path__) == [folder]:
        return
    for name in [one for one in sys.modules if one.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    made = ModuleType(PACKAGE, "The modules of the operator.")
    made.__path__ = [folder]
    sys.modules[PACKAGE] = made
    importlib.invalidate_caches()


def stems(folder: str | Path) -> list[str]:
    """Return the names of the files that may hold modules, in their order."""
    files = Path(folder).glob("*.py")
    return sorted(file.stem for file in files if file.stem.isidentifier() and file.stem[0] != "_")


def load(folder: str, stem: str) -> ModuleType:
    """Import one file.

    Raises:
        Exception: whatever it raises.
    """
    install(folder)
    return importlib.import_module(f"{PACKAGE}.{stem}")


def marked(module: ModuleType) -> Iterator[tuple[Mark, Any]]:
    """Yield the modules that a file defines; not those that it imports."""
    for made in vars(module).values():
        mark = mark_of(made)
        if mark is not None and getattr(made, "__module__", None) == module.__name__:
            yield mark, made


@dataclass(frozen=True)
class Call:
    """A module and values for its parameters.

    Args:
        folder: of the generation.
        stem: of the file.
        kind: of the module.
        name: of the module.
        params: values, as they were given.
    """

    folder: str
    stem: str
    kind: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, value: Any) -> Any:
        """Call it with a sample, a list of samples or a batch."""
        return self.made()(value)

    def made(self) -> Callable[[Any], Any]:
        """Return what is called, made once in every process.

        Raises:
            ModuleError: it is not there, or does not take such parameters.
        """
        made: Callable[[Any], Any] | None = self.__dict__.get("_made")
        if made is None:
            made = self._make()
            object.__setattr__(self, "_made", made)
        return made

    def _make(self) -> Callable[[Any], Any]:
        module = load(self.folder, self.stem)
        for mark, found in marked(module):
            if mark.kind == self.kind and mark.name == self.name:
                return arguments_of(found, self.params, f"{self.kind} {self.name!r}")
        raise LookupError(f"{self.stem}.py has no {self.kind} {self.name!r}")

    def __reduce__(self) -> Any:
        return _installed, (self.folder, self.stem, self.kind, self.name, dict(self.params))


def _installed(folder: str, *rest: Any) -> Call:
    """Make a call where it has arrived: what its results are of can be imported from now on."""
    install(folder)
    return Call(folder, *rest)
