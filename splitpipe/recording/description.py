"""What a recording says of the pipeline and the program that made it.

Responsible for: `describe`, the nodes of a graph as JSON, each with a mark that changes when its
own code or options do; `changes`, which nodes differ between two such lists; and `found_as`, under
which name a program has a pipeline.

Rules:
- nothing large is looked at: a list is its length, a function its own code and not what it calls
  or closes over.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np

from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import Node, unique_names, walk
from splitpipe.pipeline.source import FactorySource, Source

__all__ = ["changes", "code_of", "describe", "found_as", "program"]

_PLAIN = (type(None), bool, int, float, str)


def describe(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Return every node of a graph, each after its inputs.

    Example:
        >>> import splitpipe as sp
        >>> source, stage = describe(sp.Pipeline(range(9), seed=4).map(abs))
        >>> source["name"], source["length"], source["seed"]
        ('source', 9, 4)
        >>> stage["name"], stage["kind"], stage["inputs"]
        ('abs', 'Map', [0])
    """
    nodes = walk([pipeline.node])
    names = unique_names(nodes)
    numbers = {node: number for number, node in enumerate(nodes)}
    return [_node(node, names, [numbers[one] for one in node.inputs]) for node in nodes]


def changes(recorded: Sequence[Any], now: Sequence[Any]) -> list[str]:
    """Return what differs between two descriptions, in words."""
    told = []
    for one, other in zip(recorded, now):
        if one == other:
            continue
        names = [str(node.get("name")) for node in (one, other)]
        if names[0] != names[1]:
            told.append(f"{names[0]!r} is {names[1]!r} now")
            continue
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        what = "its code or options" if keys == ["mark"] else ", ".join(map(str, keys))
        told.append(f"{names[0]!r} has changed: {what}")
    if len(recorded) != len(now):
        told.append(f"there are {len(now)} nodes where {len(recorded)} were recorded")
    return told


def found_as(pipeline: Pipeline) -> str | None:
    """Return ``module:name``, or ``file.py:name``, of a pipeline that a module has as a variable,
    one of the callers' first; None if none has.
    """
    for names in _variables():
        for name, value in list(names.items()):
            # Not isinstance, which asks `value` for its class: some say that they are deprecated.
            if issubclass(type(value), Pipeline) and value.node is pipeline.node:
                place = _place(names)
                if place is not None:
                    return f"{place}:{name}"
    return None


def program() -> dict[str, Any]:
    """Return who records: what a reader may need to know of it."""
    import splitpipe  # the package itself, which is there by now

    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "arguments": [str(word) for word in sys.argv[:50]],
        "folder": os.getcwd(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "splitpipe": splitpipe.__version__,
    }


def code_of(function: Any) -> types.CodeType | None:
    """Return the code that runs first when `function` is called; None where it is not Python's."""
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None and not isinstance(function, type):
        called = getattr(type(function), "__call__", None)  # noqa: B004 - its code is wanted
        code = getattr(called, "__code__", None)
    return code if isinstance(code, types.CodeType) else None


def _variables() -> Iterator[dict[str, Any]]:
    """Yield the variables of every module, those of the callers first."""
    seen: set[int] = set()
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if id(frame.f_globals) not in seen:
            seen.add(id(frame.f_globals))
            yield frame.f_globals
        frame = frame.f_back
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if isinstance(names, dict) and id(names) not in seen:
            yield names


def _place(names: dict[str, Any]) -> str | None:
    module = names.get("__name__")
    spec = names.get("__spec__")
    if module != "__main__":
        return str(module) if module in sys.modules else None
    if spec is not None:
        return str(spec.name)
    file = names.get("__file__")
    return None if file is None else os.path.abspath(file)


def _node(node: Node, names: dict[Node, str], inputs: list[int]) -> dict[str, Any]:
    if node.source is not None:
        return {"name": node.source.name, "seed": node.seed, **_source(node.source)}
    assert node.stage is not None
    operation = node.stage.operation
    return {
        "name": names[node],
        "kind": type(operation).__name__,
        "inputs": inputs,
        "mark": _mark(operation),
    }


def _source(source: Source) -> dict[str, Any]:
    if isinstance(source, FactorySource):
        return {"kind": "factory", "mark": _mark(source.factory), "passes": source.passes}
    sequence = source.sequence
    found = {
        "kind": type(sequence).__name__,
        "length": source.size,
        "shuffle": source.shuffle,
        "window": source.window,
        "passes": source.passes,
    }
    if source.lanes > 1:
        found["lanes"] = source.lanes
    if hasattr(sequence, "iterate"):
        found["dataset"] = repr(sequence)
    if source.streams is not None:
        found["streams"] = source.streams.told()
    return found


def _mark(value: Any) -> str:
    made = hashlib.blake2b(digest_size=8)
    for word in _words(value, depth=0):
        data = word.encode("utf-8", "surrogatepass")
        made.update(len(data).to_bytes(8, "little") + data)
    return made.hexdigest()


def _words(value: Any, *, depth: int) -> Iterator[str]:
    """Yield what a value that an operation is made of says of itself, as far as that is small."""
    yield type(value).__name__
    code = code_of(value) if callable(value) else None
    if isinstance(value, _PLAIN):
        yield repr(value)
    elif isinstance(value, types.CodeType):
        yield from _code(value, depth)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield field.name
            yield from _words(getattr(value, field.name), depth=depth + 1)
    elif code is not None:
        yield getattr(value, "__qualname__", "")
        yield from _code(code, depth)
    elif callable(value):
        yield getattr(value, "__qualname__", "")
    elif isinstance(value, (tuple, list, dict)) and len(value) <= 100 and depth < 5:
        members = value.items() if isinstance(value, dict) else value
        for member in members:
            yield from _words(member, depth=depth + 1)


def _code(code: types.CodeType, depth: int) -> Iterator[str]:
    yield code.co_code.hex()
    yield from (*code.co_names, *code.co_varnames, *code.co_freevars)
    for constant in code.co_consts:
        yield from _words(constant, depth=depth + 1)
