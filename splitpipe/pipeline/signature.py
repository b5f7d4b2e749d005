"""What a saved state remembers of the graph that it was taken of.

Responsible for: `signature`, a short description of every node in values of JSON, and `compare`,
which says in words what differs.

Rules:
- it holds what decides which items come: names, kinds of operations, numbers and words that they
  were given, the sources' lengths and orders, who reads whom. Never how stages are run;
- it does not hold what functions do, nor what becomes of items that fail: a bug in one of them can
  be mended, or a bad item be left out, and the run gone on with. Who wants to know what functions
  do has `splitpipe.pipeline.stages.fingerprint`;
- it is the same in every process and for every version of Python.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from splitpipe.errors import ResumeError
from splitpipe.pipeline.graph import Node, unique_names, walk
from splitpipe.pipeline.source import SequenceSource, Source
from splitpipe.pipeline.stages.guarded import Guarded

__all__ = ["compare", "mark", "signature"]

_LONG = 160
"""Characters of a value beyond which only its hash is remembered."""

Signature = list[dict[str, Any]]


def signature(outputs: Mapping[str, Node]) -> Signature:
    """Return one entry a node, each after those that it reads, and one for the outputs.

    Example:
        >>> import splitpipe as sp
        >>> [node["name"] for node in signature({"": sp.Pipeline(range(9)).batch(2).node})]
        ['source', 'batch(2)', 'outputs']
    """
    nodes = walk(outputs.values())
    numbers = {node: number for number, node in enumerate(nodes)}
    names = unique_names(nodes)
    made: Signature = []
    for node in nodes:
        if node.stage is None:
            assert node.source is not None
            entry = {"name": node.source.name, **_source(node.source), "seed": node.seed}
        else:
            operation = node.stage.operation
            if isinstance(operation, Guarded):
                operation = operation.operation
            entry = {"name": names[node], "kind": type(operation).__name__.lower()}
            entry.update(_fields(operation))
        made.append({**entry, "reads": [numbers[one] for one in node.inputs]})
    ends = {name: numbers[node] for name, node in outputs.items()}
    made.append({"name": "outputs", "kind": "outputs", **ends})
    plain: Signature = json.loads(json.dumps(made))
    return plain


def mark(signature: Signature) -> str:
    """Return a signature as 32 digits."""
    text = json.dumps(signature, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def compare(saved: Sequence[Mapping[str, Any]], now: Signature) -> None:
    """Refuse a state of another graph.

    Raises:
        ResumeError: it names the stage or source that differs, and what about it.
    """
    for before, after in zip(saved, now, strict=False):
        if before != after:
            raise ResumeError(f"the state does not fit this pipeline: {_difference(before, after)}")
    if len(saved) != len(now):
        raise ResumeError(
            f"the state does not fit this pipeline: it is of a graph of {len(saved) - 1} sources "
            f"and stages, this one has {len(now) - 1}"
        )


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    what = _what(before)
    if before.get("kind") != after.get("kind") or before.get("name") != after.get("name"):
        return (
            f"where {what} was, {_what(after)} is now; load it into the pipeline that it was taken "
            "of, or begin the epoch anew"
        )
    for key in (*after, *before):
        if before.get(key) != after.get(key):
            return (
                f"{key} of {what} was {before.get(key)!r} and is {after.get(key)!r} now; the items "
                "would be others. Give it back its old value, or begin the epoch anew"
            )
    return f"{what} is another one"


def _what(entry: Mapping[str, Any]) -> str:
    kind = entry.get("kind")
    role = "source" if kind in ("sequence", "factory") else "stage"
    return f"the {role} {entry.get('name')!r} ({kind})"


def _source(source: Source) -> dict[str, Any]:
    if not isinstance(source, SequenceSource):
        return {"kind": "factory", "passes": source.passes}
    made = {
        "kind": "sequence",
        "length": source.size,
        "shuffle": source.shuffle,
        "window": source.window,
        "passes": source.passes,
    }
    if source.lanes > 1:
        made["lanes"] = source.lanes
    known = _dataset(source.sequence)
    if known is not None:
        made["dataset"] = known
    if source.streams is not None:
        made["streams"] = _plain(
            {
                **source.streams.told(),
                "datasets": [_dataset(one) for one in source.streams.sources],
            }
        )
    return made


def _dataset(sequence: Any) -> str | None:
    """The identity of a dataset of our own, or of a table of raw samples."""
    records = getattr(sequence, "_records", None)
    manifest = getattr(records, "manifest", None)
    if manifest is not None:
        return str(manifest.dataset.hex())
    identity = getattr(records, "identity", None)
    return identity if isinstance(identity, str) else None


def _fields(value: Any) -> dict[str, Any]:
    """The fields of an operation, or of a value that belongs to one."""
    left_out = ("policy", *getattr(value, "unsigned", ()))
    names = [field.name for field in fields(value) if field.name not in left_out]
    return {name: _plain(getattr(value, name)) for name in names}


def _plain(value: Any) -> Any:
    """A value of a user's in values of JSON; of what has none, only its kind."""
    made = _made(value)
    text = json.dumps(made)
    if len(text) > _LONG:
        return "#" + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    return made


def _made(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _made(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_made(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        inner = {field.name: _made(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__.lower(), **inner}
    if callable(value):
        return "function"
    return type(value).__name__
