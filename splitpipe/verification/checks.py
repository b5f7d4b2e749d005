"""The checks that compare one way of running a graph with another.

Responsible for: `repeat`, `process`, `runs` (workers and executors) and `once`; each takes a
`Subject` and returns what it found. Resuming, ranks and leaks have files of their own.

Rules:
- every check runs the graph itself; nothing is inferred from how it is described;
- what cannot be run in some way is not checked, and the reason is said; it never counts as kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from splitpipe.errors import GraphError, PipelineError
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import walk
from splitpipe.pipeline.source import SequenceSource
from splitpipe.verification.causes import Suspect, apart, by_prefix
from splitpipe.verification.elsewhere import read_elsewhere, read_here
from splitpipe.verification.graphs import varied
from splitpipe.verification.report import Check
from splitpipe.verification.streams import difference, read
from splitpipe.verification.subject import Subject

__all__ = ["once", "process", "repeat", "runs", "unstable"]

_STATE = (
    "it keeps something from one item, or from one run, to the next: a global, an attribute, a "
    "position in a file; let what it gives depend on its item, and on rng, alone"
)
_WORKER = (
    "what it gives depends on more than its item: on what its worker did before, on which worker "
    "that is, or on an order that several workers do not have; a stage that needs the whole stream "
    "in order is a generator behind `through`"
)
_HASH = (
    "it depends on the order of a set, or on hash() of a text, which every process has of its own; "
    "sort, or use a dict"
)
_ELSEWHERE = "it depends on something that another process has not, or has otherwise"
MOST_POSITIONS = 1 << 20
"""Of an order that are looked at, at most."""
LIMIT_S = 60.0


def repeat(subject: Subject) -> Iterator[Check]:
    """Two runs in this process, one after the other, give the same."""
    stream, trail = read_here(subject.pipeline, items=subject.items, epochs=subject.epochs)
    where = subject.apart(stream)
    subject.repeatable = where is None
    if where is None:
        count = f"{stream.items:,} items"
        yield Check("repeat", "kept", f"two runs in this process gave the same {count}")
        return
    suspect = apart(subject.pipeline, subject.trail, trail, _STATE)
    yield _broken("repeat", f"a second run in this process is not the same: {where}", suspect)


def process(subject: Subject) -> Iterator[Check]:
    """Another interpreter, with another hash seed, gives the same."""
    name, limit = "process", min(LIMIT_S, subject.left_s)
    options: dict[str, Any] = {"items": subject.items, "epochs": subject.epochs}
    try:
        stream, trail = read_elsewhere(subject.pipeline, hash_seed=1, limit_s=limit, **options)
    except (GraphError, PipelineError) as error:
        yield Check(name, "not checked", str(error))
        return
    where = subject.apart(stream)
    if where is None:
        yield Check(name, "kept", "another interpreter, with another hash seed, gave the same")
        return
    suspect = apart(subject.pipeline, subject.trail, trail, _ELSEWHERE)
    if suspect.advice == _ELSEWHERE:  # nothing was seen yet: are hash seeds what differs?
        try:
            again, _ = read_elsewhere(subject.pipeline, hash_seed=1, limit_s=limit, **options)
            other, _ = read_elsewhere(subject.pipeline, hash_seed=2, limit_s=limit, **options)
        except (GraphError, PipelineError):
            again = other = stream
        if not difference(stream, again) and difference(stream, other):
            suspect = Suspect(suspect.name, _HASH)
    yield _broken(name, f"another interpreter gives another stream: {where}", suspect)


def runs(subject: Subject, ways: tuple[str, ...]) -> Iterator[Check]:
    """Other workers and other executors give the same."""
    for name, workers, options in _ways(subject):
        if name.partition(" ")[0] not in ways:
            continue
        yield (
            Check(name, "not checked", "no time was left")
            if subject.over()
            else _run(subject, name, workers, options)
        )


def once(subject: Subject) -> Iterator[Check]:
    """Every position of a source is read once, and nothing is lost or added on the way."""
    told = []
    for node in walk([subject.pipeline.node]):
        if isinstance(node.source, SequenceSource):
            wrong = _twice(node.source, subject.epochs)
            if wrong is not None:
                yield Check("once", "broken", wrong, node.source.name)
                return
            told.append(f"{min(len(node.source), MOST_POSITIONS):,} positions of {node.name!r}")
    miscounted = _miscounted(subject)
    if miscounted is not None:
        yield miscounted
        return
    if subject.truth.whole and not subject.truth.failure:
        told.append(f"{subject.truth.items:,} items and {subject.truth.dropped:,} left out")
    elif not told:
        yield Check("once", "not checked", "no source has positions, and no epoch was read whole")
        return
    yield Check("once", "kept", f"each once: {', '.join(told)}")


def unstable(subject: Subject, name: str) -> Check | None:
    """Return why there is nothing to compare a run with, where inline itself is not the same
    twice.
    """
    if subject.repeatable is not False:
        return None
    return Check(name, "not checked", "inline itself does not give the same twice; mend that first")


def _ways(subject: Subject) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    """Yield ways to run a graph: a name, workers, and the options of a loader."""
    many = subject.workers
    yield "workers 0", 0, subject.options("process")
    yield "workers 1", 1, subject.options("process")
    yield f"workers {many}", many, subject.options("process")
    yield "executor process", None, subject.options("process")
    yield "executor thread", None, subject.options("thread")
    yield f"executor thread x {many}", many, subject.options("thread")
    yield "executor process over zmq", None, subject.options("process", "zmq")


def _run(subject: Subject, name: str, workers: int | None, options: dict[str, Any]) -> Check:
    ordered = workers is not None or not subject.unordered
    if not ordered and not subject.truth.whole:
        stages = ", ".join(map(repr, subject.unordered))
        detail = f"{stages} gives up the order, and no epoch was read whole: raise items="
        return Check(name, "not checked", detail)
    try:
        stream = subject.read(workers, **options)
    except GraphError as error:
        return Check(name, "not checked", f"it cannot be run so: {error}")
    subject.streams[name] = stream
    where = subject.apart(stream, ordered=ordered)
    if where is None:
        how = "the same" if ordered else "the same, in another order, as ordered=False allows"
        return Check(name, "kept", f"{how} {stream.items:,} items")
    suspect = by_prefix(
        subject.pipeline,
        lambda part, prefix: _differs(subject, part, prefix, workers, options),
        _WORKER,
        subject.over,
    )
    return _broken(name, f"not what inline gives: {where}", suspect)


def _differs(
    subject: Subject, name: str, prefix: Pipeline, workers: int | None, options: dict[str, Any]
) -> bool:
    """Whether the graph that ends at a node breaks the promise, too."""
    limits: dict[str, Any] = {"items": subject.most(name), "epochs": subject.epochs}
    truth = read(prefix, executor="inline", **limits)
    found = read(varied(prefix, workers), **limits, **options)
    ordered = workers is not None or all(stage.options.ordered for stage in prefix.stages)
    return difference(truth, found, ordered=ordered) is not None


def _twice(source: SequenceSource, epochs: int) -> str | None:
    """Return what is wrong with the order of a source, in words."""
    size = len(source)
    for epoch in range(epochs):
        indices = source.order(epoch).indices(0, min(size, MOST_POSITIONS))
        found, counts = np.unique(np.asarray(indices), return_counts=True)
        most = source.passes * (1 if source.streams is None else source.streams.most)
        rows = len(source.sequence)
        if len(found) and (counts.max() > most or found[0] < 0 or found[-1] >= rows):
            return f"in epoch {epoch} the order gives record {found[counts.argmax()]} twice"
    return None


def _miscounted(subject: Subject) -> Check | None:
    """Return where items were lost or added between what is read and what is delivered."""
    truth = subject.truth
    if truth.failure is not None or not truth.whole:
        return None
    try:
        expected = len(subject.pipeline)
    except TypeError:
        expected = None
    for epoch, marks in enumerate(truth.epochs):
        if expected is not None and len(marks) != expected:
            detail = f"epoch {epoch} has {len(marks)} items, and {expected} were announced"
            return Check("once", "broken", detail)
    for name, stream in subject.streams.items():
        if name == "executor process" and stream.dropped != truth.dropped:
            detail = f"workers left out {stream.dropped} items, inline {truth.dropped}"
            return Check("once", "broken", detail)
    return None


def _broken(name: str, detail: str, suspect: Suspect) -> Check:
    return Check(name, "broken", detail, suspect.name, suspect.advice)
