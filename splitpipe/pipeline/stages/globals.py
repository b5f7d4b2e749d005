"""Generators of random numbers that do not belong to a place in the stream, and how to catch them.

Responsible for: seeing that user code draws from a process-wide generator (`random`,
`numpy.random`, torch's), or carries one of its own into every worker; and that several workers draw
the same numbers, which nobody ever wants. Nothing here draws, seeds or restores anything.

How it happens: a worker is a copy of what was there when it began. Python's own generator is seeded
anew in a forked child, numpy's and torch's are not; and a generator that a function closes over is
pickled into every worker in the same state.

Rules:
- looking is cheap (some 20 microseconds a generator), for once a chunk, not once an item;
- a state is known by a number that is the same in every process for the same state;
- a generator whose module nobody has imported is not looked at.
"""

from __future__ import annotations

import functools
import random
import sys
import types
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Draw", "Watch", "advice", "carried", "duplicates", "states"]


def states() -> dict[str, int]:
    """Return a number for the state of each process-wide generator, by its name.

    Example:
        >>> before = states()
        >>> states() == before
        True
        >>> _ = random.random()
        >>> [name for name, state in states().items() if state != before[name]]
        ['random']
    """
    return {name: state() for name, state in _GENERATORS.items() if name in sys.modules}


def _of_python() -> int:
    _, words, gauss = random.getstate()
    return hash((words, gauss or 0.0))  # of numbers alone: the same in every process


def _of_numpy() -> int:
    state: Any = np.random.get_state(legacy=False)
    words = zlib.crc32(memoryview(state["state"]["key"]).cast("B"))
    return hash((words, state["state"]["pos"], state["has_gauss"], state["gauss"]))


def _of_torch() -> int:
    torch: Any = sys.modules["torch"]
    return zlib.crc32(memoryview(torch.random.get_rng_state().numpy()).cast("B"))


_GENERATORS: dict[str, Callable[[], int]] = {
    "random": _of_python,
    "numpy.random": _of_numpy,
    "torch": _of_torch,
}


@dataclass(frozen=True, slots=True)
class Draw:
    """Numbers were drawn from a process-wide generator.

    Attributes:
        generator: its name.
        state: in which it was, as a number: the same state gives the same numbers.
    """

    generator: str
    state: int


class Watch:
    """Looks, from time to time, whether somebody has drawn.

    Example:
        >>> watch = Watch()
        >>> watch.look()
        ()
        >>> _ = random.random()
        >>> [draw.generator for draw in watch.look()]
        ['random']
        >>> watch.look()
        ()
    """

    def __init__(self) -> None:
        self._seen = states()

    def look(self) -> tuple[Draw, ...]:
        """Return what was drawn from since the last look, and from which state on."""
        before, self._seen = self._seen, states()
        return tuple(
            Draw(name, before[name])
            for name, state in self._seen.items()
            if name in before and before[name] != state
        )


def duplicates(draws: Mapping[Any, Iterable[Draw]]) -> list[tuple[str, tuple[Any, ...]]]:
    """Return which workers have drawn the same numbers.

    Args:
        draws: of every worker, as its `Watch` saw them.

    Returns:
        The name of a generator, and the workers that drew from the same state of it; one pair for
        each group of workers.

    Example:
        >>> same, other = Draw("random", 1), Draw("random", 2)
        >>> duplicates({"a": [same], "b": [other], "c": [same, same]})
        [('random', ('a', 'c'))]
    """
    found: dict[Draw, dict[Any, None]] = {}
    for worker, seen in draws.items():
        for draw in seen:
            found.setdefault(draw, {})[worker] = None
    groups = {
        (d.generator, tuple(workers)): None for d, workers in found.items() if len(workers) > 1
    }
    return list(groups)


def advice(stage: str, generator: str, workers: Iterable[Any] = ()) -> str:
    """Return what to tell a user whose stage draws from a process-wide generator.

    Args:
        stage: its name.
        generator: the name of that, or how it is carried.
        workers: those that drew the same numbers.
    """
    who = ", ".join(map(str, workers))
    same = f"; workers {who} drew the same numbers from it" if who else ""
    return (
        f"stage {stage!r} draws from {generator}, so that its items depend on which worker makes "
        f"them{same}. Give its function a parameter rng: it gets a generator of its own for every "
        "item, the same whoever makes it"
    )


def carried(function: Any) -> tuple[str, ...]:
    """Return the generators that a function carries along: every worker gets a copy of them.

    Looked for in what it closes over, its defaults, the global names it uses, arguments that were
    bound to it, and the attributes of the object whose method it is.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> carried(lambda x, shared=rng: x + shared.random())
        ("default 'shared'",)
    """
    return tuple(way for way, value in _around(function) if isinstance(value, _kinds()))


def _kinds() -> tuple[type, ...]:
    torch: Any = sys.modules.get("torch")
    more = (torch.Generator,) if torch is not None else ()
    return (random.Random, np.random.Generator, np.random.RandomState, *more)


def _around(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield what comes along with a function, and how."""
    if isinstance(function, functools.partial):
        yield from ((f"argument {number}", one) for number, one in enumerate(function.args))
        yield from ((f"argument {name!r}", one) for name, one in function.keywords.items())
        yield from _around(function.func)
    elif isinstance(function, types.MethodType):
        yield from _around(function.__func__)
        yield from _attributes(function.__self__)
    elif isinstance(function, types.FunctionType):
        yield from _of_function(function)
    else:
        yield from _attributes(function)
        called = getattr(type(function), "__call__", None)  # noqa: B004 - its code is wanted
        if isinstance(called, types.FunctionType):
            yield from _around(called)


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    from splitpipe.pipeline.stages.fingerprint import globals_of  # workers do not look into code

    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"variable {name!r}", cell.cell_contents
        except ValueError:
            continue  # it has no value yet
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        yield f"default {name!r}", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"default {name!r}", value
    for name in sorted(globals_of(code) & function.__globals__.keys()):
        yield f"global {name!r}", function.__globals__[name]


def _attributes(owner: Any) -> Iterator[tuple[str, Any]]:
    for name, value in getattr(owner, "__dict__", {}).items():
        yield f"attribute {name!r}", value
