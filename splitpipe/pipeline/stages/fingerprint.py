"""What a graph is, as a short text: for what was made by the same graph, and by no other.

Responsible for: `fingerprint`, of any value that a graph is made of: operations, functions and
sources.

A function is its module, its name, its code (instructions, constants, names), its defaults, the
values that it closes over, and the values of the global names that it uses: functions among them in
the same way, however deep, so that changing a helper changes what calls it. Code of installed
packages and of Python itself is its name and the version of the package. A dataset is what it
pickles as: its path and the snapshot that was opened, not its bytes.

Rules:
- equal values have the same fingerprint in every process and on every run, for the same version of
  Python; it does not depend on addresses, on the order of sets or on the numbers of lines;
- what cannot be identified is refused, with the way that led to it: a fingerprint that misses a
  difference would give old results for new ones;
- nothing is called but ``__reduce_ex__``, which pickling would call as well, and a method
  ``__fingerprint__`` of what travels with more than decides what it is (caches, credentials).

What it cannot see: names that code looks up by a string, and data outside of the graph.
"""

from __future__ import annotations

import copyreg
import dis
import hashlib
import re
import struct
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from splitpipe.errors import GraphError

__all__ = ["fingerprint", "globals_of"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_BUILTINS = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)


def fingerprint(*values: Any) -> str:
    """Return 32 hexadecimal digits that stand for `values`.

    Raises:
        GraphError: something in them cannot be identified; the message says what, and where.

    Example:
        >>> fingerprint([len, {"size": 3}]) == fingerprint([len, {"size": 3}])
        True
        >>> fingerprint([len, {"size": 3}]) == fingerprint([len, {"size": 4}])
        False
    """
    digest = _Digest()
    digest.add(sys.version_info[:2], "")
    for value in values:
        digest.add(value, "")
    return digest.hexdigest()


class _Digest:
    """A hash of nested values. Each is hashed by itself, once; what contains itself says so."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._known: dict[int, bytes] = {}
        self._under_way: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no address is used twice

    def hexdigest(self) -> str:
        """Return what was added, in 32 digits."""
        return self._hash.hexdigest()

    def add(self, value: Any, way: str) -> None:
        """Add a value; `way` says how it was come by."""
        if type(value) in _PLAIN:
            self._plain(value)
        elif id(value) in self._under_way:
            depth = len(self._under_way) - self._under_way[id(value)]
            self._say("again", str(depth))  # recursive functions end here
        else:
            self._hash.update(self._apart(value, way))

    def _apart(self, value: Any, way: str) -> bytes:
        """The hash of one value by itself."""
        known = self._known.get(id(value))
        if known is None:
            outer, self._hash = self._hash, hashlib.blake2b(digest_size=16)
            self._under_way[id(value)] = len(self._under_way)
            self._kept.append(value)
            try:
                self._treat(value, way)
                known = self._known[id(value)] = self._hash.digest()
            finally:
                self._hash = outer
                del self._under_way[id(value)]
        return known

    def _treat(self, value: Any, way: str) -> None:
        exact = _EXACT.get(type(value))
        if exact is not None:
            exact(self, value, way)
            return
        for kinds, treat in _KINDS:
            if isinstance(value, kinds):
                treat(self, value, way)
                return
        self._object(value, way)

    def _say(self, *words: str) -> None:
        for word in words:
            data = word.encode("utf-8", "surrogatepass")
            self._hash.update(struct.pack("<Q", len(data)) + data)

    def _bytes(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        self._hash.update(struct.pack("<Q", view.nbytes))
        self._hash.update(view)

    def _plain(self, value: Any) -> None:
        self._say(type(value).__name__)
        if isinstance(value, bytes):
            self._bytes(value)
        elif isinstance(value, str):
            self._say(value)
        else:
            self._say(repr(value))

    # -- containers

    def _sequence(self, value: Iterable[Any], way: str) -> None:
        items = list(value)
        self._say(_name(type(value)), str(len(items)))
        for number, item in enumerate(items):
            self.add(item, f"{way}[{number}]")

    def _mapping(self, value: Mapping[Any, Any], way: str) -> None:
        self._say(_name(type(value)), str(len(value)))
        for key, item in value.items():
            self.add(key, f"{way} key")
            self.add(item, f"{way}[{key!r}]")

    def _set(self, value: Iterable[Any], way: str) -> None:
        items = list(value)
        self._say(_name(type(value)), str(len(items)))
        # Each in a tuple of its own, since values that are plain have no hash of theirs.
        for part in sorted(self._apart((item,), way) for item in items):
            self._hash.update(part)

    def _array(self, value: Any, way: str) -> None:
        if value.dtype.hasobject:
            self._say("array", str(value.shape))
            self.add(value.ravel().tolist(), way)
            return
        self._say("array", repr(value.dtype), str(value.shape))
        self._bytes(np.ascontiguousarray(value).reshape(-1).view(np.uint8))

    def _dtype(self, value: Any, way: str) -> None:
        self._say("dtype", repr(value))

    def _named(self, value: Any, way: str) -> None:
        self._say(_name(type(value)), repr(value))

    def _enum(self, value: Enum, way: str) -> None:
        self._say("enum", _name(type(value)), value.name)
        self.add(value.value, way)

    # -- code

    def _function(self, value: types.FunctionType, way: str) -> None:
        way = f"{way} > {value.__qualname__}" if way else value.__qualname__
        self._say("function", value.__module__ or "", value.__qualname__)
        if self._is_installed(value.__module__):
            return
        self._code(value.__code__, way)
        self.add(value.__defaults__, f"{way} default")
        self.add(value.__kwdefaults__, f"{way} default")
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:
                self._say("empty", name)  # a name that is bound later
                continue
            self._say(name)
            self.add(content, f"{way} > variable {name!r}")
        for name in sorted(globals_of(value.__code__)):
            if name in value.__globals__:
                self._say(name)
                self.add(value.__globals__[name], f"{way} > global {name!r}")

    def _code(self, code: types.CodeType, way: str) -> None:
        self._say("code", *code.co_names, *code.co_varnames, *code.co_freevars)
        self._say(str(code.co_flags), str(code.co_argcount), str(code.co_kwonlyargcount))
        self._bytes(code.co_code)
        self._bytes(code.co_exceptiontable)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, way)
            else:
                self.add(constant, f"{way} constant")

    def _method(self, value: types.MethodType, way: str) -> None:
        self._say("method")
        self.add(value.__self__, f"{way} > {value.__qualname__}")
        self.add(value.__func__, way)

    def _builtin(self, value: Any, way: str) -> None:
        owner = getattr(value, "__self__", None)
        self._say("builtin", getattr(value, "__module__", None) or "", value.__qualname__)
        if owner is not None and not isinstance(owner, types.ModuleType):
            self.add(owner, f"{way} > {value.__qualname__}")

    def _module(self, value: types.ModuleType, way: str) -> None:
        self._say("module", value.__name__)
        if self._is_installed(value.__name__):
            return
        try:
            self._bytes(Path(value.__file__ or "").read_bytes())
        except (OSError, AttributeError) as error:
            raise GraphError(
                f"the module {value.__name__!r} cannot be identified{_at(way)}: it has no version, "
                "and no file that could be read; import the functions themselves"
            ) from error
        others = {_module_of(member) for member in vars(value).values()} - {None, value.__name__}
        for name in sorted(filter(None, others)):
            self.add(sys.modules.get(name), f"{way} > module {value.__name__}")

    def _class(self, value: type, way: str) -> None:
        self._say("class", _name(value))
        if self._is_installed(value.__module__):
            return
        for base in value.__bases__:
            self.add(base, way)
        for name, member in sorted(vars(value).items()):
            if name in _OF_EVERY_CLASS or isinstance(member, _OF_THE_MACHINE):
                continue
            self._say(name)
            self.add(member, f"{way} > {value.__qualname__}.{name}")

    def _wrapped(self, value: Any, way: str) -> None:
        self._say(type(value).__name__)
        self.add(value.__func__, way)

    def _property(self, value: property, way: str) -> None:
        self._say("property")
        for function in (value.fget, value.fset, value.fdel):
            self.add(function, way)

    def _is_installed(self, module: str | None) -> bool:
        """Whether a module is of an installed package or of Python; then say which version."""
        version = _version_of(module or "")
        if version is None:
            return False
        self._say("version", version)
        return True

    # -- anything else

    def _object(self, value: Any, way: str) -> None:
        kind = type(value)
        if isinstance(value, np.generic):
            self._say(_name(kind))
            self._array(np.asarray(value), way)
            return
        known = getattr(kind, "__fingerprint__", None)
        if known is not None:
            self._say("known", _name(kind))
            self.add(known(value), way)
            return
        try:
            reduce = copyreg.dispatch_table.get(kind)
            reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:
            raise GraphError(
                f"a {kind.__name__} cannot be identified{_at(way)}: {error}; make it inside of the "
                "function that uses it, or give a name for what is cached"
            ) from error
        self._say("object")
        self.add(kind, way)
        if isinstance(reduced, str):  # pickled by name
            self._say(reduced)
            self.add(getattr(value, "__wrapped__", None), way)
            return
        make, arguments, *more = reduced
        state, items, pairs = (*more, None, None, None)[:3]
        self.add(make, way)
        self.add(arguments, way)
        self.add(state, f"{way} > {kind.__name__}" if way else kind.__name__)
        self.add(list(items) if items is not None else None, way)
        self.add(list(pairs) if pairs is not None else None, way)


_OF_EVERY_CLASS = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__qualname__",
        "__firstlineno__",
        "__static_attributes__",
        "__abstractmethods__",
        "_abc_impl",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__match_args__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__parameters__",
        "__orig_bases__",
        "__slots__",
    }
)
"""What says nothing of what a class does, or is said by its other members."""

_OF_THE_MACHINE = (types.MemberDescriptorType, types.GetSetDescriptorType)

_EXACT: dict[type, Callable[[_Digest, Any, str], None]] = {
    tuple: _Digest._sequence,
    list: _Digest._sequence,
    dict: _Digest._mapping,
    types.MappingProxyType: _Digest._mapping,
    set: _Digest._set,
    frozenset: _Digest._set,
}
"""Containers; those that are derived from them may have more to say, and are objects."""

_NAMED = (range, slice, PurePath, re.Pattern, types.EllipsisType, types.NotImplementedType)

_KINDS: tuple[tuple[Any, Callable[[_Digest, Any, str], None]], ...] = (
    (types.FunctionType, _Digest._function),
    (types.MethodType, _Digest._method),
    (_BUILTINS, _Digest._builtin),
    (types.ModuleType, _Digest._module),
    (Enum, _Digest._enum),
    (type, _Digest._class),
    ((staticmethod, classmethod), _Digest._wrapped),
    (property, _Digest._property),
    (np.ndarray, _Digest._array),
    (np.dtype, _Digest._dtype),
    (_NAMED, _Digest._named),
)


def globals_of(code: types.CodeType) -> set[str]:
    """Names that a function, or one inside of it, looks up beyond itself."""
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= globals_of(constant)
    return names


def _module_of(member: Any) -> str | None:
    """The name of the user's module that a member of another one comes from."""
    if isinstance(member, types.ModuleType):
        name: str | None = member.__name__
    elif isinstance(member, types.FunctionType | type):
        name = member.__module__
    else:
        return None
    return None if name is None or _version_of(name) is not None else name


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _at(way: str) -> str:
    return f" (in {way})" if way else ""


@lru_cache(1)
def _distributions() -> Mapping[str, list[str]]:
    from importlib import metadata  # takes 15 ms

    return metadata.packages_distributions()


@lru_cache(4096)
def _version_of(module: str) -> str | None:
    """The version of the package that a module belongs to; None for the user's own modules."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return sys.version
    if top == "splitpipe":  # the file itself: it may be run from where it is written
        return hashlib.blake2b(Path(sys.modules[module].__file__ or "").read_bytes()).hexdigest()
    path = getattr(sys.modules.get(top), "__file__", None) or ""
    places = {sysconfig.get_paths()[name] for name in ("purelib", "platlib")}
    if not any(path.startswith(place) for place in places):
        return None
    names = sorted(set(_distributions().get(top, ())))
    from importlib import metadata

    return " ".join(f"{name} {metadata.version(name)}" for name in names) or None
