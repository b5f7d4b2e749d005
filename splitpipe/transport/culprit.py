"""Where in a value lies what cannot be pickled.

Responsible for: `culprit`, words for an error message. It is called when pickling has failed, and
looks for the innermost part that fails by itself: a captured variable, a global, a default, an
attribute, an item.

Rules:
- it only looks; whatever goes wrong while it does is no news, and it then says nothing;
- it looks at a bounded number of parts: a large value has an answer in time, or none.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["culprit"]

_MOST_PARTS = 500
"""Parts that are tried; each costs one pickle."""


def culprit(value: object) -> str:
    """Return words that say where in `value` lies what cannot be pickled, or nothing.

    Example:
        >>> import threading
        >>> lock = threading.Lock()
        >>> culprit([1, {"a": lock}])
        "; the culprit: a '_thread.lock' object, item 'a', in item 1 of the list"
        >>> culprit([1, 2])
        ''
    """
    try:
        found = _innermost(value)
    except Exception:
        return ""
    if found is None or not found[1]:
        return ""
    what, path = found
    kind = f"{type(what).__module__}.{type(what).__qualname__}".removeprefix("builtins.")
    return f"; the culprit: a {kind!r} object, {', in '.join(reversed(path))}"


def _innermost(value: object) -> tuple[object, list[str]] | None:
    """Return the innermost part that cannot be pickled, and the way to it from outside."""
    tried, seen = 0, {id(value)}
    path: list[str] = []
    if _travels(value):
        return None
    while True:
        for words, part in _parts(value, outermost=not path):
            if id(part) in seen:
                continue
            tried += 1
            if tried > _MOST_PARTS:
                return value, path
            if not _travels(part):
                seen.add(id(part))
                path.append(words)
                value = part
                break
        else:
            return value, path


def _travels(value: object) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True


def _parts(value: Any, *, outermost: bool) -> Iterator[tuple[str, object]]:
    """Yield the parts of `value` that travel with it, and what each is called."""
    inside = f" of the {type(value).__qualname__}" if outermost else ""
    if isinstance(value, types.MethodType):
        yield f"the object that {value.__qualname__} is bound to", value.__self__
        yield "", value.__func__
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, functools.partial):
        yield f"the function{inside}", value.func
        for number, one in enumerate(value.args):
            yield f"argument {number}{inside}", one
        for name, one in value.keywords.items():
            yield f"the argument {name!r}{inside}", one
    elif isinstance(value, dict):
        for key, one in value.items():
            yield f"item {key!r}{inside and ' of the dict'}", one
            yield f"the key {key!r}{inside and ' of the dict'}", key
    elif isinstance(value, (list, tuple, set, frozenset)):
        for number, one in enumerate(value):
            yield f"item {number}{inside}", one
    else:
        for name, one in _attributes(value):
            yield f"the attribute {name!r}{inside}", one


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    name = function.__name__
    try:
        used = inspect.getclosurevars(function)
    except (TypeError, ValueError):
        used = None
    if used is not None:
        for variable, one in used.nonlocals.items():
            yield f"the variable {variable!r} that {name} captures", one
        for variable, one in used.globals.items():
            yield f"the global {variable!r} that {name} uses", one
    for number, one in enumerate(function.__defaults__ or ()):
        yield f"default {number} of {name}", one
    for variable, one in (function.__kwdefaults__ or {}).items():
        yield f"the default of {variable!r} of {name}", one
    for attribute, one in vars(function).items():
        yield f"the attribute {attribute!r} of {name}", one


def _attributes(value: Any) -> Iterator[tuple[str, object]]:
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield field.name, getattr(value, field.name)
        return
    state = getattr(value, "__dict__", {})
    if isinstance(state, dict):
        yield from state.items()
