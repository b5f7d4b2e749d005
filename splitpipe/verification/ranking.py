"""Whether ranks together read what one alone would.

Responsible for: the check `ranks`: for several world sizes the streams of all ranks, taken in turn,
are the stream of the whole graph.
"""

from __future__ import annotations

from collections.abc import Iterator

from splitpipe.errors import GraphError
from splitpipe.pipeline.builder import Pipeline, pipeline_of
from splitpipe.pipeline.graph import walk
from splitpipe.pipeline.stages import Balance, Shard
from splitpipe.verification.causes import by_prefix
from splitpipe.verification.report import Check
from splitpipe.verification.streams import Stream, difference, read
from splitpipe.verification.subject import Subject

__all__ = ["ranks"]

_RANKED = (
    "what it gives depends on which other items its rank has; stages behind which ranks part have "
    "to treat each item by itself, or the same stream in every rank"
)


def ranks(subject: Subject) -> Iterator[Check]:
    """The union of all ranks is the stream of one."""
    if subject.unordered:
        stages = ", ".join(map(repr, subject.unordered))
        yield Check("ranks", "not checked", f"{stages} gives up the order")
        return
    name, whole = undealt(subject.pipeline)
    truth, before = subject.truth, ""
    if name is not None:
        truth, before = _truth(subject, name, whole), f", as far as {name!r} reads it"
    for world in subject.worlds:
        name = f"ranks {world}"
        if subject.over():
            yield Check(name, "not checked", "no time was left")
            continue
        try:
            where = _parts(whole, truth, world)
        except GraphError as error:
            yield Check(name, "not checked", f"it cannot be shared out: {error}")
            continue
        if where is None:
            yield Check(name, "kept", f"{world} in turn give the stream of one{before}")
            continue

        def differs(part: str, prefix: Pipeline, world: int = world) -> bool:
            return _parts(prefix, _truth(subject, part, prefix), world) is not None

        suspect = by_prefix(whole, differs, _RANKED, subject.over)
        yield Check(name, "broken", f"not the stream of one: {where}", suspect.name, suspect.advice)


def undealt(pipeline: Pipeline) -> tuple[str | None, Pipeline]:
    """Return the name of the first stage that deals out to ranks, and the graph before it; the
    whole graph where there is none.

    Example:
        >>> import splitpipe as sp
        >>> name, whole = undealt(sp.Pipeline(range(9)).shard(1, 2).batch(4))
        >>> name, len(whole)
        ('shard', 9)
    """
    for node in walk([pipeline.node]):
        if node.stage is not None and isinstance(node.stage.operation, (Shard, Balance)):
            return node.name, pipeline_of(node.inputs[0])
    return None, pipeline


def _truth(subject: Subject, name: str, pipeline: Pipeline) -> Stream:
    """Return the stream of a part of the graph that ends at, or before, the stage `name`."""
    items = subject.most(name)
    return read(pipeline, items=items, epochs=subject.epochs, executor="inline")


def _parts(pipeline: Pipeline, truth: Stream, world: int) -> str | None:
    """Return where the streams of all ranks, in turn, part from the truth."""
    epochs = len(truth.epochs)
    streams = []
    for rank in range(world):
        longest = max((len(marks) for marks in truth.epochs), default=0)
        items = max(1, -(-(longest - rank) // world))
        if truth.whole:
            items += 1  # so that what is too much is seen
        one = pipeline.shard(rank, world, ends="uneven")
        streams.append(read(one, items=items, epochs=epochs, executor="inline"))
    joined = tuple(
        _in_turn([stream.epochs[epoch] for stream in streams if epoch < len(stream.epochs)])
        for epoch in range(epochs)
    )
    if not truth.whole:
        joined = tuple(
            marks[: len(known)] for marks, known in zip(joined, truth.epochs, strict=True)
        )
    failure = next((stream.failure for stream in streams if stream.failure), None)
    return difference(truth, Stream(joined, truth.whole, failure))


def _in_turn(parts: list[tuple[bytes, ...]]) -> tuple[bytes, ...]:
    longest = max(map(len, parts), default=0)
    return tuple(part[turn] for turn in range(longest) for part in parts if turn < len(part))
