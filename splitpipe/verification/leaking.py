"""Whether runs of a graph leave anything behind.

Responsible for: the check `leaks`: descriptors, threads, children and shared memory after runs with
workers; memory that every pass over the graph keeps.
"""

from __future__ import annotations

from collections.abc import Iterator

from splitpipe.errors import GraphError
from splitpipe.pipeline.builder import Pipeline
from splitpipe.recording.description import code_of
from splitpipe.verification.causes import by_prefix, functions_of
from splitpipe.verification.leaks import Growth, growth
from splitpipe.verification.possessions import left_behind, possessions
from splitpipe.verification.report import Check
from splitpipe.verification.streams import read
from splitpipe.verification.subject import Subject

__all__ = ["leaks"]

EXECUTORS = ("process", "process", "thread", "inline")
"""Of the runs that are looked at."""
_KEEPS = "it keeps what it opens or starts; close it, or have one for all items"
SHARE = 0.4
"""Of the time that is left, for watching memory."""


def leaks(subject: Subject) -> Iterator[Check]:
    """Nothing is left behind by runs, and no pass keeps memory."""
    try:
        subject.read(None, **subject.options("process"))  # starts what stays for good
    except GraphError as error:
        yield Check("leaks", "not checked", f"it cannot be run with workers: {error}")
    else:
        yield _left(subject)
    yield _memory(subject)


def _left(subject: Subject) -> Check:
    before = possessions()
    for executor in EXECUTORS:
        subject.read(None, **subject.options(executor))
    left = left_behind(before)
    if not left:
        detail = (
            f"nothing is left of {len(EXECUTORS)} runs: child, thread, descriptor, shared memory"
        )
        return Check("leaks", "kept", detail)
    told = "; ".join(f"{kind}: {', '.join(names[:8])}" for kind, names in left.items())
    suspect = by_prefix(
        subject.pipeline, lambda name, prefix: _keeps(subject, name, prefix), _KEEPS, subject.over
    )
    return Check(
        "leaks",
        "broken",
        f"left behind by {len(EXECUTORS)} runs: {told}",
        suspect.name,
        suspect.advice,
    )


def _keeps(subject: Subject, name: str, prefix: Pipeline) -> bool:
    """Whether the graph that ends at a node leaves something behind, too."""
    before = possessions()
    read(prefix, items=subject.most(name), epochs=subject.epochs, executor="inline")
    return bool(left_behind(before))


def _memory(subject: Subject) -> Check:
    end = subject.left_s * (1 - SHARE)

    def run() -> int:
        stream = read(subject.pipeline, items=subject.items, epochs=1, executor="inline")
        return stream.items

    found = growth(run, until=lambda: subject.left_s < end)
    per_item = found.nbytes / max(1, found.items)
    if found.line is None:
        detail = f"passes over {found.items:,} items keep no memory"
        return Check("memory", "kept", detail)
    stage = _stage_of(subject.pipeline, found)
    return Check(
        "memory",
        "broken",
        f"every pass over {found.items:,} items keeps {found.nbytes:,} bytes more "
        f"({per_item:,.0f} an item), most of them allocated at {found.line}",
        stage,
        "something grows with every item: a list, a dict, a cache without bound",
    )


def _stage_of(pipeline: Pipeline, found: Growth) -> str | None:
    """Return the stage in whose code a line stands; None where it is in none's."""
    for stage in pipeline.stages:
        for function in functions_of(stage.operation):
            code = code_of(function)
            if code is None or code.co_filename != found.file:
                continue
            lines = [line for _, _, line in code.co_lines() if line is not None]
            if lines and min(lines) <= found.number <= max(lines):
                return stage.name
    return None
