"""Whose a value is: may it pass to another thread as it is?

Responsible for: finding out whether anybody but the transport could still change a value, and
copying the ones of which that is so.

Rules:
- what its maker does to a value after handing it over changes nothing for the reader. A value that
  nobody else refers to passes as it is, and so does one that cannot change; anything else is
  copied, as exactly as if it had gone to another process;
- ownership is counted, not promised: an object belongs to whoever holds all references to it. A
  container's parts are looked at one by one, an array's memory too, and a weak reference is
  a reference. What cannot be looked into (a foreign object, memory of another library) is not ours;
- when in doubt, copy: a copy costs time, a shared value costs the promise.

What is counted is ``sys.getrefcount`` of CPython with its interpreter lock. How many references the
way to the count itself holds differs between versions, so it is measured (`Probe`), not assumed.
Without the lock counts are kept in two halves that nobody reads at once, and deferred for some
objects: there nothing is ours by counting (`COUNTED` is false), and whatever can change is copied.
"""

from __future__ import annotations

import enum
import gc
import sys
import types
import weakref
from abc import ABC
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from functools import lru_cache
from itertools import chain
from typing import Any, Generic, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splitpipe.transport.pickling import dump, dump_plainly, load
from splitpipe.transport.tensors import is_tensor, tensor_nbytes

__all__ = [
    "COUNTED",
    "Probe",
    "constant",
    "contents",
    "copied",
    "duplicate",
    "probes",
    "references",
    "sole_base",
    "weight_of",
]

COUNTED = (
    sys.implementation.name == "cpython"
    and hasattr(sys, "getrefcount")
    and "t" not in getattr(sys, "abiflags", "")  # a build without the interpreter lock
)
"""Whether counting references says whose an object is."""

references: Callable[[object], int] = getattr(sys, "getrefcount", lambda _: sys.maxsize)
"""How many references there are to an object, its argument's own among them."""

WORD = 8
"""Bytes that anything small is taken to have: weights are for dosing, not for accounting."""

_SIZED = frozenset({str, bytes})
_CONSTANT = frozenset(
    {int, float, complex, bool, type(None), type(Ellipsis), range}
    | {date, datetime, time, timedelta, timezone}
    | {kind for kind in np.sctypeDict.values() if kind not in (np.void, np.object_)}
    | _SIZED
)
"""Types whose values cannot change."""

_ALSO_CONSTANT = {("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID")} | {
    (module, name)
    for module in ("pathlib", "pathlib._local")  # where they live in Python 3.13
    for name in ("PosixPath", "PurePosixPath")
}
"""More of them, by module and name: what nobody imported has no values."""

_ANCHORED = (type, types.ModuleType, types.BuiltinFunctionType, types.CodeType)
"""What belongs to the program, not to a value."""

_MOST_REACHED = 10_000
"""Objects that are looked at to find out whose one is; larger ones are copied."""

_Look: TypeAlias = "Callable[[Any, bool], int | None]"


class Probe:
    """A value that nobody holds but those on whose way it is."""

    __slots__ = ()


def probes() -> Iterator[Probe]:
    """Yield a few probes, and hold none of them."""
    for _ in range(3):
        yield Probe()


def constant(value: Any) -> int | None:
    """Return the bytes of a value that nobody can change, None where somebody could.

    Example:
        >>> constant((1, ("two", None))), constant((1, [2]))
        (19, None)
    """
    kind: type = type(value)
    if kind in _CONSTANT:
        return len(value) if kind in _SIZED else WORD
    if kind is tuple or kind is frozenset or _is_named_tuple(kind):
        return _all(map(constant, value))
    if isinstance(value, enum.Enum) or (kind.__module__, kind.__name__) in _ALSO_CONSTANT:
        return WORD
    return None


def contents(value: Any, *, strict: bool = True) -> int | None:
    """Return the bytes of a value to which the caller holds all references, None where somebody
    else could still change a part of it.

    Args:
        value: what to look into.
        strict: whether what cannot be looked into counts as somebody else's. Otherwise it is
            judged by what it refers to, as far as the garbage collector knows.
    """
    kind: type = type(value)
    look = _LOOKS.get(kind)
    if look is None:
        weight = constant(value)
        if weight is not None:
            return weight
        look = _look(kind)
    if weakref.getweakrefcount(value):
        return None
    if look is None:
        return None if strict else _anything(value)
    return look(value, strict)


def weight_of(constants: list[Any]) -> int:
    """Return the bytes of values that are known to be constant, cheaply.

    Example:
        >>> weight_of([1, 2]), weight_of([(1, "one"), (2, "two")])
        (16, 22)
    """
    kinds = set(map(type, constants))
    if kinds == {tuple}:
        constants = list(chain.from_iterable(constants))
        kinds = set(map(type, constants))
    if kinds.isdisjoint(_SIZED) and tuple not in kinds:
        return WORD * len(constants)
    return sum(constant(value) or 0 for value in constants)


def duplicate(
    value: Any, take: Callable[[memoryview], Any], *, plainly: bool = False
) -> tuple[Any, int]:
    """Return a copy that shares nothing with `value`, and its bytes.

    Args:
        value: what to copy, by way of pickle.
        take: called with the bytes of each array; returns what to restore it over (see `copied`).
        plainly: without cloudpickle, which makes something else of files and closures.

    Raises:
        NotPicklable: there is no way to make one.
    """
    buffers: list[Any] = []
    if plainly:
        stream = dump_plainly(value, buffers.append)
    else:
        stream = dump(value, buffers.append, again=buffers.clear)
    raws = [buffer.raw() for buffer in buffers]
    return load(stream, map(take, raws)), len(stream) + sum(raw.nbytes for raw in raws)


def copied(raw: memoryview) -> NDArray[np.uint8]:
    """Return a copy of the bytes of `raw`, to restore an array over."""
    return np.array(np.frombuffer(raw, np.uint8))


def sole_base(array: NDArray[Any]) -> Any:
    """Return what the memory of an array belongs to, if nothing but this array uses it."""
    base = array.base
    return base if references(base) <= _BASE else None


# --- by kind ----------------------------------------------------------------------------------


def _array(array: NDArray[Any], strict: bool) -> int | None:
    del strict
    if array.dtype.hasobject or array.flags.writebackifcopy:
        return None
    base: Any = array.base
    if base is None:
        return array.nbytes if array.flags.owndata else None
    if type(base) is bytes:
        return array.nbytes
    if type(base) is not np.ndarray or references(base) > _BASE or base.base is not None:
        return None
    if not base.flags.owndata or weakref.getweakrefcount(base):
        return None
    return array.nbytes


def _sequence(parts: Any, strict: bool) -> int | None:
    kinds = set(map(type, parts))
    if kinds <= _CONSTANT:
        if kinds.isdisjoint(_SIZED):
            return WORD * len(parts)
        return sum(len(part) if type(part) in _SIZED else WORD for part in parts)
    return _parts(parts, strict)


def _dict(mapping: dict[Any, Any], strict: bool) -> int | None:
    if not _CONSTANT.issuperset(map(type, mapping)) and _all(map(constant, mapping)) is None:
        return None
    weight = _sequence(mapping.values(), strict)
    return None if weight is None else weight + WORD * len(mapping)


def _bytearray(value: bytearray, strict: bool) -> int | None:
    del strict
    return len(value)


def _view(value: memoryview, strict: bool) -> int | None:
    """Others may look at the same memory without a reference to be counted."""
    del strict
    return value.nbytes if type(value.obj) is bytes else None


def _instance(value: Any, strict: bool) -> int | None:
    """Look into an instance of a dataclass."""
    weight = _parts(_slots(value), strict)
    if weight is None or not type(value).__dictoffset__:
        return weight
    state = vars(value)
    if references(state) > _STATE:
        return None
    rest = _dict(state, strict)
    return None if rest is None else weight + rest


def _anything(value: Any) -> int | None:
    """Judge an object as the garbage collector does: everything that can be reached from it is its
    own if all references to it come from there. An open file, say.
    """
    reached: list[Any] = []
    inside: dict[int, int] = {id(value): sys.maxsize}
    todo = [value]
    while todo and len(reached) < _MOST_REACHED:
        for part in _referents(todo.pop()):
            if isinstance(part, _ANCHORED) or constant(part) is not None:
                continue
            if id(part) not in inside:
                inside[id(part)] = 0
                reached.append(part)
                todo.append(part)
            inside[id(part)] += 1
    part = None
    for part in reached:
        if references(part) > _PART + inside[id(part)] or weakref.getweakrefcount(part):
            return None
        if type(part) is np.ndarray and _array(part, True) is None:
            return None
    return None if todo else WORD * (1 + len(reached))


def _referents(value: Any) -> list[Any]:
    """What an object refers to; of a function, without the module that it belongs to."""
    if type(value) is types.FunctionType:
        return [value.__closure__, value.__defaults__, value.__kwdefaults__, *vars(value).values()]
    return gc.get_referents(value)


def _parts(parts: Iterable[Any], strict: bool) -> int | None:
    """Return what the parts of a container weigh that nobody but the container holds."""
    total = 0
    for part in parts:
        if references(part) <= _PART:
            weight = contents(part, strict=strict)
        else:
            weight = constant(part)
        if weight is None:
            return None
        total += weight
    return total


def _slots(value: Any) -> Iterator[Any]:
    """Yield what lies in the slots of an instance; hold none of it."""
    kind: type = type(value)
    for member in _members(kind):
        try:
            yield member.__get__(value)
        except AttributeError:
            continue  # nothing was put there yet


@lru_cache(1024)
def _members(kind: type) -> tuple[types.MemberDescriptorType, ...]:
    found = [one for base in kind.__mro__ for one in vars(base).values()]
    return tuple(one for one in found if isinstance(one, types.MemberDescriptorType))


@lru_cache(1024)
def _is_record(kind: type) -> bool:
    """Whether the instances of a class hold nothing but what a dataclass, or its heirs, put into
    them.
    """
    bases = kind.__mro__[:-1]
    plain = all(is_dataclass(base) or base in (Generic, ABC) for base in bases)
    return is_dataclass(kind) and plain and type(kind) in (type, type(ABC))


@lru_cache(1024)
def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields") and kind.__dictoffset__ == 0


def _all(weights: Iterable[int | None]) -> int | None:
    total = 0
    for weight in weights:
        if weight is None:
            return None
        total += weight
    return total


def _look(kind: type) -> _Look | None:
    """Return how to look into the instances of a class that users made."""
    if _is_named_tuple(kind):
        return _sequence
    if is_tensor(kind):
        return tensor_nbytes
    return _instance if _is_record(kind) else None


_LOOKS: dict[type, _Look] = {
    np.ndarray: _array,
    dict: _dict,
    list: _sequence,
    tuple: _sequence,
    set: _sequence,
    frozenset: _sequence,
    deque: _sequence,
    bytearray: _bytearray,
    memoryview: _view,
}


# --- what the way to a count holds itself -----------------------------------------------------


@dataclass
class _Record:
    field: int = 0


def _references_of_part(parts: Iterable[Any]) -> int:
    for part in parts:
        return references(part)
    return 0


def _references_of_base(array: NDArray[Any]) -> int:
    base = array.base
    return references(base)


def _references_of_state(value: Any) -> int:
    state = vars(value)
    return references(state)


_PART = _references_of_part([Probe()]) if COUNTED else -1
_BASE = _references_of_base(np.empty(2)[:1]) if COUNTED else -1
_STATE = _references_of_state(_Record()) if COUNTED else -1
