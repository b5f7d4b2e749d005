"""Trying an iteration out: its first batches, for people.

Responsible for: `try_out`, which makes them in a process of its own, since modules are used; and
being that process (``python -m splitpipe.server.iterations.trying``).

Rules:
- what is shown was made as it would be for a client, and could be sent; nothing is stored;
- every value is cut to what can be looked at;
- an iteration that makes nothing for too long is ended; what came before is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.schema import Field
from splitpipe.server.catalog import open_snapshot
from splitpipe.server.catalog.preview import shown
from splitpipe.server.iterations.description import IterationSpec
from splitpipe.server.iterations.finish import encode
from splitpipe.server.iterations.made import Broken, Ended, Failure, Made
from splitpipe.server.iterations.streams import columns_of, stream_of
from splitpipe.server.modules.apart import ChildFailed, answer, ask

__all__ = ["try_out"]

_NAME = "splitpipe.server.iterations.trying"
_MOST_VALUES = 16
_MOST_DEPTH = 8
_FIELD = Field("bytes")


def try_out(
    spec: IterationSpec,
    snapshot: Mapping[str, Any],
    modules: Path | None,
    *,
    count: int = 3,
    silence_s: float = 30.0,
) -> dict[str, Any]:
    """Return the first batches of an iteration, in values of JSON.

    Args:
        spec: what is tried.
        snapshot: of its dataset.
        modules: the folder of the generation that it would use.
        count: how many batches.
        silence_s: most seconds that one batch may take.

    Returns:
        ``batches``: each with ``value`` (cut), ``samples``, ``filtered``, ``failed``, ``failures``
        and ``category``; ``ended``: whether there are no more; ``error``: what ended it, or None.
    """
    request = {
        "spec": spec.model_copy(update={"workers": 0, "epochs": 1}).model_dump(mode="json"),
        "snapshot": dict(snapshot),
        "modules": None if modules is None else str(modules),
        "count": count,
    }
    told: dict[str, Any] = {"batches": [], "ended": False, "error": None}
    try:
        for one in ask(_NAME, request, silence_s=silence_s):
            if "value" in one:
                told["batches"].append(one)
            else:
                told.update(one)
    except ChildFailed as error:
        told["error"] = Failure("try", -1, "ChildFailed", str(error)).to_json()
    return told


def _try(request: Any) -> Iterator[Any]:
    spec = IterationSpec.model_validate(request["spec"])
    modules = None if request["modules"] is None else Path(request["modules"])
    try:
        dataset = open_snapshot(request["snapshot"], columns_of(spec))
        stream = stream_of(spec, dataset, modules, encode=_sent, close=dataset.close)
    except Exception as error:
        yield {"error": Failure.of(error, "open").to_json()}
        return
    with stream:
        for event in stream:
            if isinstance(event, Broken):
                yield {"error": event.error.to_json()}
                return
            if isinstance(event, Ended):
                yield {
                    "ended": True,
                    "filtered": event.filtered,
                    "failed": event.failed,
                    "failures": [one.to_json() for one in event.failures],
                }
                return
            yield _batch(event)
            if event.sequence + 1 >= request["count"]:
                return


def _sent(value: Any) -> list[Any]:
    """Return the value itself, when it could be sent."""
    encode(value)
    return [value]


def _batch(made: Made) -> dict[str, Any]:
    return {
        "value": _cut(made.frames[0]),
        "samples": made.samples,
        "filtered": made.filtered,
        "failed": made.failed,
        "failures": [one.to_json() for one in made.failures],
        "category": _cut(made.category),
    }


def _cut(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON that is safe to show."""
    if isinstance(value, dict | list | tuple) and depth >= _MOST_DEPTH:
        return {"kind": type(value).__name__, "length": len(value)}
    if isinstance(value, dict):
        return {str(key): _cut(one, depth + 1) for key, one in list(value.items())[:1000]}
    if isinstance(value, list | tuple):
        head = [_cut(one, depth + 1) for one in value[:_MOST_VALUES]]
        if len(value) <= _MOST_VALUES:
            return head
        return {"kind": type(value).__name__, "length": len(value), "head": head}
    if isinstance(value, np.ndarray | np.generic | bytes | bytearray | str | bool | int | float):
        return shown(_FIELD, value)
    return shown(_FIELD, None if value is None else str(value))


if __name__ == "__main__":
    answer(_try)
