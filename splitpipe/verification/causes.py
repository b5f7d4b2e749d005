"""Which stage a broken promise begins with, and what it probably does.

Responsible for: `Suspect`, a stage or source and what to do about it; `apart`, the suspect of two
runs in this process that differ, from what flowed between their stages; `by_prefix`, that of a run
that cannot be looked into: the graph is cut behind one node after the other.

Rules:
- a suspect gave something else although everything that it read was the same;
- what it probably does is looked for: a generator of the whole process, an input that is changed in
  place, code that asks for time or process; what was not seen is not said.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

from splitpipe.errors import SplitpipeError
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.stages import Operation, Through
from splitpipe.pipeline.stages.globals import advice, carried
from splitpipe.recording.description import code_of
from splitpipe.verification.graphs import prefixes
from splitpipe.verification.streams import read
from splitpipe.verification.trails import Examiner, Layer, first_apart

__all__ = ["Suspect", "apart", "by_prefix", "functions_of"]

_PROCESS = frozenset(
    {
        *("getpid", "getppid", "current_process", "parent_process", "get_ident"),
        *(
            "get_native_id",
            "current_thread",
            "environ",
            "getenv",
            "gethostname",
            "sched_getaffinity",
        ),
    }
)
_TIME = frozenset(
    {
        *("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns"),
        *("process_time", "now", "utcnow", "today", "uuid1", "uuid4", "urandom", "token_hex"),
        *("token_bytes", "randbits"),
    }
)
_MANY = 64
"""Items that are looked at for what a stage does."""


@dataclass(frozen=True)
class Suspect:
    """With which stage or source a broken promise begins; None where that could not be told.

    Attributes:
        name: of it.
        advice: what it probably does, and what to try.
    """

    name: str | None = None
    advice: str = ""


Trails = dict[tuple[int, int], Layer]


def apart(pipeline: Pipeline, one: Trails, other: Trails, otherwise: str) -> Suspect:
    """Return with what two runs of `pipeline` in one process each part.

    Args:
        pipeline: a settled one.
        one: what flowed.
        other: the same of the other run.
        otherwise: what to say of a stage at which nothing else is found.
    """
    layer = first_apart(one, other)
    if layer is None:
        return Suspect()
    found = _examined(pipeline)
    if not layer.source:
        return _suspect(pipeline, layer.name, found, otherwise)
    for name in found.changing:
        return Suspect(
            name,
            f"stage {name!r} changes its input in place, and the source {layer.name!r} gives the "
            "same objects again; let the stage make new ones, or copy them first",
        )
    return Suspect(
        layer.name,
        f"the source {layer.name!r} gives other items when it is read again: an iterator that is "
        "used up, a file that is read on from where it was, or data that changes",
    )


def by_prefix(
    pipeline: Pipeline,
    differs: Callable[[str, Pipeline], bool],
    otherwise: str,
    until: Callable[[], bool],
) -> Suspect:
    """Return the first node behind which the graph is cut and still differs.

    Args:
        pipeline: a settled one.
        differs: whether the graph that ends at a node breaks the promise too; given its name.
        otherwise: what to say of a stage at which nothing else is found.
        until: whether the time is over.
    """
    for name, prefix in prefixes(pipeline):
        if until():
            return Suspect(None, "which stage it begins with was not found in time; see seconds=")
        try:
            broken = differs(name, prefix)
        except SplitpipeError:
            continue  # the graph cannot end here: let it go on
        if broken:
            return _suspect(pipeline, name, _examined(prefix), otherwise)
    return Suspect(None, "it comes and goes: no part of the graph shows it again by itself")


def functions_of(operation: Operation) -> Iterator[Any]:
    """Yield the functions of the user's that an operation calls."""
    if isinstance(operation, Through):
        yield partial(operation.function, *operation.arguments, **operation.keywords)
    else:
        yield from _of_fields(operation)


def _of_fields(operation: Any) -> Iterator[Any]:
    if is_dataclass(operation):
        for field in fields(operation):
            yield from _callables(getattr(operation, field.name))


def _callables(value: Any) -> Iterator[Any]:
    if isinstance(value, Operation):
        yield from functions_of(value)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _callables(one)
    elif isinstance(value, dict):
        yield from _callables(tuple(value.values()))
    elif callable(value) and not isinstance(value, type):
        yield value


def _examined(pipeline: Pipeline) -> Examiner:
    found = Examiner(_MANY)
    read(pipeline, items=_MANY, epochs=1, watcher=found, executor="inline")
    return found


def _suspect(pipeline: Pipeline, name: str, found: Examiner, otherwise: str) -> Suspect:
    """Return what is known of the stage `name`."""
    drawn = sorted(found.drawing.get(name, ()))
    if drawn:
        return Suspect(name, advice(name, " and ".join(drawn)))
    stages = {stage.name: stage.operation for stage in pipeline.stages}
    operation = stages.get(name)
    functions = list(functions_of(operation)) if operation is not None else []
    for function in functions:
        ways = carried(function)
        if ways:
            return Suspect(name, advice(name, f"a generator that it carries along ({ways[0]})"))
    asks = sorted({word for one in functions for word in _names(code_of(one))})
    for kinds, what in ((_PROCESS, "which process runs it"), (_TIME, "when it is run")):
        words = [word for word in asks if word in kinds]
        if words:
            return Suspect(
                name,
                f"stage {name!r} asks {', '.join(words)}: what it gives depends on {what}; take "
                "such values as parameters, or from the item",
            )
    if name in found.changing:
        otherwise += "; it also changes its input in place"
    return Suspect(name, otherwise)


def _names(code: types.CodeType | None) -> Iterator[str]:
    """Yield the names that a function, or one inside of it, asks for."""
    if code is None:
        return
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
