"""Whether a loader that goes on from a state gives what would have come next.

Responsible for: the check `resume`: states are taken between items that are spread over what was
read, by an inline loader and by one with workers, and each is gone on from in another way.

Rules:
- a state travels as JSON;
- what is compared is everything that the truth has behind the state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from splitpipe.errors import GraphError, ResumeError
from splitpipe.pipeline.builder import Pipeline
from splitpipe.verification.causes import by_prefix
from splitpipe.verification.graphs import varied
from splitpipe.verification.report import Check
from splitpipe.verification.streams import Stream, collect, difference, mark_of, read
from splitpipe.verification.subject import Subject

__all__ = ["resume"]

STEPS = 5
"""Places at which states are taken."""
FEW = 3
"""The same, where every one of them is a run with workers."""

_RESUMED = (
    "it does not begin where it was left: what it gives depends on what it was given before, and "
    "that is not in the state; keep it in the items, or give the stage state_dict and "
    "load_state_dict"
)

Way = tuple["int | None", dict[str, Any]]
"""Workers, and options of the loader."""
State = tuple[int, int, dict[str, Any]]
"""Epoch, items of it that were delivered, and the state of the loader there."""


def resume(subject: Subject) -> Iterator[Check]:
    """What comes after a resume equals what would have come without it."""
    name = "resume"
    if subject.unordered:
        stages = ", ".join(map(repr, subject.unordered))
        yield Check(name, "not checked", f"{stages} gives up the order, so that nothing is next")
        return
    many = subject.workers
    inline = subject.options("inline")
    workers = subject.options("process")
    ways: list[tuple[str, int, Way, Way]] = [
        ("inline", STEPS, (None, inline), (None, inline)),
        (f"with {many} workers, taken inline", FEW, (None, inline), (many, workers)),
        (f"inline, taken with {many} workers", STEPS, (many, workers), (None, inline)),
    ]
    for how, steps, taken, going in ways:
        if subject.over():
            yield Check(name, "not checked", f"{how}: no time was left")
            continue
        try:
            wrong = _wrong(subject.pipeline, subject.truth, taken, going, steps)
        except GraphError as error:
            yield Check(name, "not checked", f"{how}: it cannot be run so: {error}")
            continue
        if wrong is None:
            yield Check(name, "kept", f"{how}: the same items behind {steps} places")
            continue
        suspect = by_prefix(
            subject.pipeline,
            partial(_differs, subject, taken=taken, going=going),
            _RESUMED,
            subject.over,
        )
        yield Check(name, "broken", f"{how}: {wrong}", suspect.name, suspect.advice)


def _differs(subject: Subject, name: str, prefix: Pipeline, *, taken: Way, going: Way) -> bool:
    items = subject.most(name)
    truth = read(prefix, items=items, epochs=subject.epochs, executor="inline")
    return _wrong(prefix, truth, taken, going, FEW) is not None


def _wrong(pipeline: Pipeline, truth: Stream, taken: Way, going: Way, steps: int) -> str | None:
    """Return what is wrong behind which place; None where nothing is."""
    places = _places(truth, steps)
    for epoch, ordinal, state in _states(pipeline, truth, places, taken):
        workers, options = going
        epochs = len(truth.epochs)
        try:
            options = {**options, "epochs": epochs, "state": state}
            with varied(pipeline, workers).loader(**options) as loader:
                expected = _tail(truth, epoch, ordinal)
                longest = max(map(len, expected.epochs))
                found = collect(loader, items=max(1, longest + expected.whole))
        except ResumeError as error:
            return f"after {ordinal} items of epoch {epoch}: {error}"
        where = difference(expected, _cut(found, expected))
        if where is not None:
            return f"after {ordinal} items of epoch {epoch}: {where} (counted from there)"
    return None


def _places(truth: Stream, steps: int) -> list[tuple[int, int]]:
    """Return `steps` places that are spread over a stream, its first and its last among them."""
    every = [
        (epoch, ordinal)
        for epoch, marks in enumerate(truth.epochs)
        for ordinal in range(1, len(marks) + 1)
    ]
    if not every:
        return []
    chosen = {round(number * (len(every) - 1) / (steps - 1)) for number in range(steps)}
    return [every[number] for number in sorted(chosen)]


def _states(
    pipeline: Pipeline, truth: Stream, places: list[tuple[int, int]], taken: Way
) -> list[State]:
    """Return the states of a loader at these places."""
    workers, options = taken
    made: list[State] = []
    with varied(pipeline, workers).loader(epochs=len(truth.epochs), **options) as loader:
        for epoch, stream in enumerate(loader.by_epoch()):
            wanted = {ordinal for number, ordinal in places if number == epoch}
            last = max(wanted, default=0)
            for ordinal, item in enumerate(stream, 1):
                mark_of(item)  # as a loop would look at it
                del item
                if ordinal in wanted:
                    made.append((epoch, ordinal, json.loads(json.dumps(loader.state_dict()))))
                if ordinal >= last:
                    break
    return made


def _tail(truth: Stream, epoch: int, ordinal: int) -> Stream:
    """What is left of a stream: of this epoch, and of the others where all is known of them."""
    rest = truth.epochs[epoch][ordinal:]
    others = truth.epochs[epoch + 1 :] if truth.whole else ()
    return Stream((rest, *others), truth.whole, truth.failure if truth.whole else None)


def _cut(found: Stream, expected: Stream) -> Stream:
    """As much of what was found as is expected, where that is not all."""
    if expected.whole:
        return found
    return Stream(found.epochs[: len(expected.epochs)], expected.whole)
