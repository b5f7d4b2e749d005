"""Whether a job is still the one that was begun.

Responsible for: `Identity`, what decides the bytes that a job writes, its JSON form, and what is
different between two of them, in words; `Note`, what stands in every commit of a job.

Rules:
- what decides what is written is in it: stages with their code, the source with its generation and
  order, the options of the output, the size of a task;
- what does not is not: workers, executors, how far it is, what becomes of records that fail;
- what cannot be identified is refused, unless the user says a version for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from splitpipe.codecs import Zstd
from splitpipe.errors import FormatError, GraphError
from splitpipe.jobs.shape import Shape
from splitpipe.jobs.summary import Counts
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import unique_names, walk
from splitpipe.pipeline.stages.fingerprint import fingerprint
from splitpipe.schema import Schema
from splitpipe.views.subset import Columns

__all__ = ["Identity", "Note", "described", "identify", "source_of"]

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides what a job writes.

    Attributes:
        stages: name, fingerprint and inputs of every stage.
        source: how many records, of which data, in which order.
        output: schema as it was said, column, compression, and the like.
        task: records of a task.
        into: the dataset that a column is for, and its generation.
    """

    stages: Sequence[Sequence[Any]]
    source: Mapping[str, Any]
    output: Mapping[str, Any]
    task: int
    into: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """It as JSON."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return document

    def name(self) -> bytes:
        """What a dataset is named after that this makes: 16 bytes."""
        text = json.dumps(self.to_json(), sort_keys=True).encode()
        return hashlib.blake2b(text, digest_size=16).digest()

    def differences(self, earlier: Identity) -> list[str]:
        """What is another one than it was, in words; empty where nothing is."""
        return [
            *_of_stages(earlier.stages, self.stages),
            *_of_source(earlier.source, self.source),
            *_of_options(earlier.output, self.output),
            *([] if self.task == earlier.task else [f"task is {self.task}, was {earlier.task}"]),
            *([] if self.into == earlier.into else [_of_into(earlier.into, self.into)]),
        ]


def _of_stages(before: Sequence[Sequence[Any]], now: Sequence[Sequence[Any]]) -> list[str]:
    found = []
    old, new = ({name: rest for name, *rest in stages} for stages in (before, now))
    found += [f"stage {name!r} is new" for name in new if name not in old]
    found += [f"stage {name!r} is gone" for name in old if name not in new]
    for name, (code, inputs) in new.items():
        if name in old and old[name][0] != code:
            found.append(f"stage {name!r} changed (its code, its options, or what it uses)")
        elif name in old and old[name][1] != inputs and not found:
            found.append(f"stage {name!r} reads something else than it did")
    return found


def _of_source(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    if before.get("data") != now.get("data"):
        one, other = before.get("data"), now.get("data")
        words = "the source is another one, or changed"
        both = isinstance(one, Mapping) and isinstance(other, Mapping)
        if both and (one or {}).get("dataset") == (other or {}).get("dataset"):
            words = f"the source changed: {_generation(other)}, it was {_generation(one)}"
        found.append(words)
    found += [
        f"{what} of the source: {now[what]!r}, was {before.get(what)!r}"
        for what in now
        if what != "data" and before.get(what) != now[what]
    ]
    return found


def _generation(data: Any) -> str:
    return f"generation {data.get('generation')}"


def _of_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name} is {now.get(name)!r}, was {before.get(name)!r}" for name in names]


def _of_into(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    if before is None or now is None or before.get("dataset") != now.get("dataset"):
        return "the dataset that the column is for is another one"
    return (
        f"the dataset that the column is for changed: it is generation {now.get('generation')}, "
        f"it was {before.get('generation')}"
    )


@dataclass(frozen=True, slots=True)
class Note:
    """What stands in every commit of a job.

    Attributes:
        identity: of the job.
        schema: of what is written, as JSON; ``None`` while nothing came out that would tell.
        done: how many records of the source.
        total: what became of them.
        finished: whether that is all of them.
        left: how much was left out, by who left it out.
        column: the column, where it is part of the dataset that it is for.
    """

    identity: Identity
    schema: Mapping[str, Any] | None
    done: int
    total: Counts
    finished: bool
    left: Mapping[str, int] = field(default_factory=dict)
    column: str | None = None

    def to_json(self) -> dict[str, Any]:
        """It as JSON."""
        return {
            "job": VERSION,
            "identity": self.identity.to_json(),
            "schema": None if self.schema is None else dict(self.schema),
            "done": self.done,
            "total": asdict(self.total),
            "finished": self.finished,
            "left": dict(self.left),
            "column": self.column,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Self | None:
        """The note of a commit; ``None`` if it is none of a job.

        Raises:
            FormatError: it is one of a newer version, or damaged.
        """
        if document is None or "job" not in document:
            return None
        try:
            if document["job"] != VERSION:
                raise FormatError("it was written by a newer splitpipe: update it")
            if document["schema"] is not None:
                Schema.from_json(document["schema"])
            return cls(
                identity=Identity(**document["identity"]),
                schema=document["schema"],
                done=int(document["done"]),
                total=Counts(**document["total"]),
                finished=bool(document["finished"]),
                left=dict(document["left"]),
                column=document["column"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"what a job left for itself cannot be read: {error}") from error


def identify(
    pipeline: Pipeline,
    shape: Shape,
    *,
    output: Mapping[str, Any],
    task: int,
    into: Mapping[str, Any] | None,
    version: str | None,
) -> Identity:
    """Return what decides what a job writes.

    Args:
        pipeline: of the job.
        shape: of its graph.
        output: the options of what is written.
        task: records of a task.
        into: the dataset that a column is for.
        version: stands for the code of the stages; ``None`` looks into them.

    Raises:
        GraphError: a stage, or the source, cannot be identified; the message says which.
    """
    nodes = walk([pipeline.node])
    numbers = {node: number for number, node in enumerate(nodes)}
    names = unique_names(nodes)
    stages = [
        (
            names[node],
            version if version is not None else _identified(names[node], node.stage.operation),
            [numbers[one] for one in node.inputs],
        )
        for node in nodes
        if node.stage is not None
    ]
    made = Identity(stages, source_of(shape, version), output, task, into)
    return Identity(**made.to_json())


def _identified(name: str, operation: Any) -> str:
    try:
        return fingerprint(operation)
    except GraphError as error:
        raise GraphError(
            f"nobody could tell whether stage {name!r} is still the same when the job goes on: "
            f"{error}. Or give the job a version= that you change together with the code"
        ) from error


def source_of(shape: Shape, version: str | None = None) -> dict[str, Any]:
    """What a source is known by."""
    source = shape.source
    streams = source.streams
    data = (
        _data(source.sequence, version)
        if streams is None
        else {**streams.told(), "data": [_data(one, version) for one in streams.sources]}
    )
    known = {
        "records": shape.positions,
        "shuffle": source.shuffle,
        "seed": shape.body.seed,
        "window": source.window,
        "passes": source.passes,
        "data": data,
    }
    return known if source.lanes == 1 else {**known, "lanes": source.lanes}


def _data(sequence: Any, version: str | None) -> Any:
    records, columns = getattr(sequence, "records", None), None
    while isinstance(records, Columns):
        columns, records = columns or list(records.schema), records.parent
    manifest = getattr(records, "manifest", None)
    if manifest is not None:  # wherever it lies
        known = {"dataset": manifest.dataset.hex(), "generation": manifest.generation}
        return known if columns is None else {**known, "columns": columns}
    if version is not None:
        return version
    try:
        return fingerprint(sequence)
    except GraphError as error:
        raise GraphError(
            "nobody could tell whether the source is still the same when the job goes on: "
            f"{error}. Or give the job a version= that you change together with it"
        ) from error


def described(compression: str | Zstd | Mapping[str, str | Zstd] | None) -> Any:
    """A compression as JSON.

    Example:
        >>> described({"text": Zstd(19), "ids": "zstd"})
        {'text': 'zstd 19', 'ids': 'zstd 3'}
    """
    if isinstance(compression, Mapping):
        return {name: described(one) for name, one in compression.items()}
    if compression is None:
        return None
    how = compression if isinstance(compression, Zstd) else Zstd()
    given = how.dictionary
    return f"zstd {how.level}" + (f", dictionary {fingerprint(given)}" if given else "")
