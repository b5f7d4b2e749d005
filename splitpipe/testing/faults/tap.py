"""Standing between a program and the system calls it makes on files.

Responsible for: `Tap`, which replaces the functions of `CALLS` for a while, numbers every call that
concerns a file below one directory, and lets a handler decide what becomes of it; and for knowing
which functions there are, so that a test can tell a new one that nobody stands under.

Rules:
- a call on anything outside the directory is passed on unseen;
- a name that a module of this package imported from elsewhere (``from fcntl import flock``) is
  replaced as well;
- what is done in C, by SQLite or by a kernel of this package, does not pass here.

One tap at a time; calls of all threads pass through it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Self

__all__ = ["CALLS", "Call", "Handler", "Tap", "opens_for_change"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where a function's files are named, and whether it changes what is on the disk."""

    files: str
    changes: bool


_PATH = _Kind("path", changes=False)
_PATH_CHANGE = _Kind("path", changes=True)
_PATHS_CHANGE = _Kind("paths", changes=True)
_DESCRIPTOR = _Kind("descriptor", changes=False)
_DESCRIPTOR_CHANGE = _Kind("descriptor", changes=True)

CALLS: Final[dict[str, _Kind]] = {
    "fcntl.flock": _DESCRIPTOR,
    "mmap.mmap": _DESCRIPTOR,
    "os.close": _DESCRIPTOR,
    "os.fdatasync": _DESCRIPTOR_CHANGE,
    "os.fstat": _DESCRIPTOR,
    "os.fsync": _DESCRIPTOR_CHANGE,
    "os.ftruncate": _DESCRIPTOR_CHANGE,
    "os.link": _PATHS_CHANGE,
    "os.listdir": _PATH,
    "os.lstat": _PATH,
    "os.mkdir": _PATH_CHANGE,
    "os.open": _PATH,
    "os.posix_fadvise": _DESCRIPTOR,
    "os.posix_fallocate": _DESCRIPTOR_CHANGE,
    "os.pread": _DESCRIPTOR,
    "os.preadv": _DESCRIPTOR,
    "os.pwrite": _DESCRIPTOR_CHANGE,
    "os.pwritev": _DESCRIPTOR_CHANGE,
    "os.read": _DESCRIPTOR,
    "os.remove": _PATH_CHANGE,
    "os.rename": _PATHS_CHANGE,
    "os.replace": _PATHS_CHANGE,
    "os.rmdir": _PATH_CHANGE,
    "os.scandir": _PATH,
    "os.sendfile": _DESCRIPTOR_CHANGE,
    "os.stat": _PATH,
    "os.truncate": _PATH_CHANGE,
    "os.unlink": _PATH_CHANGE,
    "os.write": _DESCRIPTOR_CHANGE,
}
"""Functions that a tap stands under, by ``module.name``. ``os.makedirs`` and the questions of
``os.path`` are made of these; what is not here and touches files passes unseen."""

_MODULES: Final = {"fcntl": fcntl, "mmap": mmap, "os": os}
_CHANGING_FLAGS: Final = os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True, slots=True)
class Call:
    """One call that passed a tap.

    Attributes:
        number: counts the calls of a tap, from 1.
        name: ``module.name`` of the function.
        path: the file it concerns; for two of them, the one that is written.
        args: its positional arguments.
        changes: whether it changes what is on the disk. Opening does when it creates or empties.
    """

    number: int
    name: str
    path: str
    args: tuple[Any, ...]
    changes: bool

    def __str__(self) -> str:
        return f"call {self.number}, {self.name} of {os.path.basename(self.path)}"


Handler = Callable[[Call, Callable[[], Any]], Any]
"""Called as ``handler(call, proceed)``; returns what the call returns. ``proceed()`` makes it."""


def _let_pass(call: Call, proceed: Callable[[], Any]) -> Any:
    return proceed()


class Tap:
    """Stands under the file calls of this process while its ``with`` block runs.

    Args:
        root: calls on this directory and what lies below it are numbered and handed over.
        handler: decides what becomes of each; by default all are made, and only counted.

    Attributes:
        count: how many calls passed.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> names = []
        >>> def note(call, proceed):
        ...     names.append(call.name)
        ...     return proceed()
        >>> with Tap(path, note) as tap:
        ...     sp.write_split_data(path, [b"abc"], splits=1)
        >>> tap.count == len(names), "os.pwrite" in names, names.count("os.replace")
        (True, True, 2)
    """

    def __init__(self, root: str | os.PathLike[str], handler: Handler = _let_pass) -> None:
        self.count = 0
        self._root = os.path.abspath(os.fspath(root))
        self._handler = handler
        self._paths: dict[int, str] = {}
        self._put_back = contextlib.ExitStack()

    def __enter__(self) -> Self:
        tapped: dict[int, Any] = {}  # by the id of what it stands for
        for name, kind in CALLS.items():
            module, attribute = _place(name)
            original = getattr(module, attribute, None)
            if original is None:  # pragma: no cover - a system that lacks it
                continue
            under = _tapped_map(self) if name == "mmap.mmap" else self._under(name, kind, original)
            tapped[id(original)] = under
        for holder, own_name, value in list(_held()):
            found = tapped.get(id(value))
            if found is not None:
                self._put_back.callback(setattr, holder, own_name, value)
                setattr(holder, own_name, found)
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back.close()

    def _under(self, name: str, kind: _Kind, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def tapped(*args: Any, **options: Any) -> Any:
            return self.passed(name, kind, args, lambda: original(*args, **options))

        return tapped

    def passed(
        self, name: str, kind: _Kind, args: tuple[Any, ...], proceed: Callable[[], Any]
    ) -> Any:
        """One call: hand it over if it concerns us."""
        path = self._path(kind, args)
        if path != self._root and not path.startswith(self._root + os.sep):
            return proceed()
        self.count += 1
        changes = kind.changes or (name == "os.open" and opens_for_change(args))
        result = self._handler(Call(self.count, name, path, args, changes), proceed)
        if name == "os.open":
            self._paths[result] = path
        elif name == "os.close":
            self._paths.pop(args[0], None)
        return result

    def _path(self, kind: _Kind, args: tuple[Any, ...]) -> str:
        if kind.files != "descriptor":
            last = args[1] if kind.files == "paths" else args[0] if args else "."
            if not isinstance(last, int):
                return os.path.abspath(os.fsdecode(last))
            return self._path(_DESCRIPTOR, (last,))
        descriptor = args[0]
        known = self._paths.get(descriptor)
        if known is not None:
            return known
        # Opened before the tap was there.
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/self/fd/{descriptor}")
        return ""


def opens_for_change(args: tuple[Any, ...]) -> bool:
    """Whether the arguments of ``os.open`` may create or empty a file."""
    return bool(args[1] & _CHANGING_FLAGS)


def _tapped_map(tap: Tap) -> type[mmap.mmap]:
    original = mmap.mmap

    class Tapped(original):  # type: ignore[valid-type, misc]  # the class that is replaced
        def __new__(cls, *args: Any, **options: Any) -> Any:
            # What is mapped is of the plain class: it outlives the tap.
            return tap.passed(
                "mmap.mmap", CALLS["mmap.mmap"], args, lambda: original(*args, **options)
            )

    return Tapped


def _place(name: str) -> tuple[ModuleType, str]:
    module, _, attribute = name.partition(".")
    return _MODULES[module], attribute


def _held() -> Iterator[tuple[ModuleType, str, Any]]:
    """What modules hold under which names: those that functions are of, and those of ours, which
    may hold one under a name of their own.
    """
    for module, attribute in map(_place, CALLS):
        yield module, attribute, getattr(module, attribute, None)
    for name, ours in list(sys.modules.items()):
        if name.startswith("splitpipe.") and not name.startswith(__package__ or ""):
            for own_name, value in list(vars(ours).items()):
                yield ours, own_name, value
