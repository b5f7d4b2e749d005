"""`replay`: one item of a recorded run, made again.

Responsible for: finding the item in a recording, running the graph in this process up to it, making
it under the eyes of a `Witness` or of a debugger, and saying how it came about.

Rules:
- it is made by the graph that is given, not by the one that was recorded: whoever looks for a fault
  wants to mend it; what has changed since is said;
- it begins at the nearest state that was recorded, or at the beginning of the epoch.
"""

from __future__ import annotations

import json
import os
import time
from bdb import BdbQuit
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from splitpipe.errors import NotPicklable, PipelineError, ResumeError, StorageError
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import common_seed, walk
from splitpipe.recording.description import changes, code_of, describe
from splitpipe.recording.lineage import Origin, origins
from splitpipe.recording.reading import Entry, Recording
from splitpipe.runtime.digest import digest
from splitpipe.runtime.watching import watching
from splitpipe.verification.causes import functions_of
from splitpipe.verification.debugging import StageDebugger
from splitpipe.verification.witness import StageRun, Witness

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """An item that was made again, and how it came about.

    Attributes:
        item: it.
        recorded: what was noted when it was delivered.
        digest: of its content; None where it has none.
        origins: which records went into it.
        stages: what every stage did for it, here.
        changes: what has changed in the graph since, in words.
        seed: of the graph.
        seconds: that making it took.

    Example:
        >>> import tempfile
        >>> import splitpipe as sp
        >>> pipe = sp.Pipeline(range(100), shuffle="global", seed=1).batch(4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with pipe.loader(executor="inline", record=folder) as loader:
        ...         batches = [batch.tolist() for batch in loader]
        ...     made = sp.replay(folder, 7, pipe)
        >>> made.item.tolist() == batches[7], list(made.origins[0].records) == batches[7]
        (True, True)
    """

    item: Any
    recorded: Entry
    digest: str | None
    origins: tuple[Origin, ...]
    stages: tuple[StageRun, ...]
    changes: tuple[str, ...] = ()
    seed: int = 0
    seconds: float = 0.0

    @property
    def same(self) -> bool | None:
        """Whether it has the content that was recorded; None where none was."""
        if self.recorded.digest is None or self.digest is None:
            return None
        return self.recorded.digest == self.digest

    @property
    def text(self) -> str:
        """It, for people."""
        return "\n".join(_lines(self))

    def to_json(self) -> dict[str, Any]:
        """Return everything but the item itself, as data."""
        one = self.recorded
        return {
            "step": one.step,
            "epoch": one.epoch,
            "ordinal": one.ordinal,
            "run": one.heading.get("run"),
            "started": one.started,
            "time_s": one.time_s,
            "worker": one.worker,
            "busy_ms": one.busy_ms,
            "item": list(shapes(self.item)),
            "digest": self.digest,
            "recorded_digest": one.digest,
            "same": self.same,
            "seed": self.seed,
            "origins": [_plain(origin) for origin in self.origins],
            "stages": [_plain(stage) for stage in self.stages],
            "changes": list(self.changes),
            "seconds": self.seconds,
        }

    def save(self, path: str | os.PathLike[str]) -> tuple[str, ...]:
        """Write the arrays of the item into a ``.npz`` file, and what else it has, as far as JSON
        knows it, into its member ``json``.

        Returns:
            The names of the arrays; parts of nested items have the way to them as their name.

        Raises:
            StorageError: the file cannot be written.
        """
        arrays: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for way, value in parts(self.item):
            plain = np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else None
            if plain is not None and not plain.dtype.hasobject:
                arrays[way or "item"] = plain
            else:
                others[way or "item"] = value
        arrays["json"] = np.array(json.dumps(others, default=repr))
        try:
            with open(path, "wb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise StorageError(error.errno, f"cannot save: {error.strerror}", str(path)) from error
        return tuple(name for name in arrays if name != "json")


def replay(
    directory: str | os.PathLike[str],
    step: int,
    pipeline: Pipeline,
    *,
    debug: bool = False,
) -> Replay:
    """Make item number `step` of a recorded run again, in this process.

    Args:
        directory: that the loader was given as ``record=``.
        step: number of the item, from 0, over epochs and resumed runs.
        pipeline: that was run; what has changed in it since is told, not refused.
        debug: stop in Python's debugger where the first stage begins with the item.

    Raises:
        StorageError: nothing was recorded there, or not this step.
        PipelineError: the pipeline does not get as far.
        BdbQuit: the debugger was left before there was an item.

    Example:
        >>> import tempfile
        >>> import splitpipe as sp
        >>> pipe = sp.Pipeline(range(50)).map(lambda x, rng: x + rng.random()).batch(5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for _ in pipe.loader(executor="inline", record=folder):
        ...         pass
        ...     made = sp.replay(folder, 4, pipe)
        >>> made.stages[0].rng, made.stages[0].numbers
        ('item', (20, 21, 22, 23, 24))
    """
    entry = Recording(directory).entry(step)
    witness = Witness()
    began = time.perf_counter()
    item = _again(pipeline, entry, witness, debug=debug)
    known = origins(pipeline, entry.epoch, entry.ordinal)
    exact = {origin.source for origin in known}
    return Replay(
        item=item,
        recorded=entry,
        digest=_content(item),
        origins=(*known, *(one for one in witness.origins() if one.source not in exact)),
        stages=witness.stages(),
        changes=tuple(changes(entry.heading.get("pipeline", []), _described(pipeline))),
        seed=common_seed(walk([pipeline.node])),
        seconds=time.perf_counter() - began,
    )


_NOTHING = object()


def _again(pipeline: Pipeline, entry: Entry, witness: Witness, *, debug: bool) -> Any:
    """Make the item of an entry under the eyes of a witness."""
    before = max(0, entry.ordinal - 1)  # one item more, so that what is made again is made then
    with watching(witness):
        loader = _loader(pipeline, entry, before)
    with loader:
        stream = _stream(loader, entry)
        skip = entry.ordinal - before
        passed = sum(1 for _ in islice(stream, skip))
        witness.begin()
        item = _made(stream, pipeline, debug=debug) if passed == skip else _NOTHING
    if item is _NOTHING:
        raise PipelineError(
            f"epoch {entry.epoch} of the pipeline ends before item {entry.ordinal}, which was "
            "recorded; it is another pipeline, or its data has changed"
        )
    return item


def _content(item: Any) -> str | None:
    try:
        return digest(item).hex()
    except NotPicklable:
        return None


def _described(pipeline: Pipeline) -> list[Any]:
    """The description of a graph, as a recording has it."""
    made: list[Any] = json.loads(json.dumps(describe(pipeline)))
    return made


def _loader(pipeline: Pipeline, entry: Entry, ordinal: int) -> Loader:
    """Return a loader whose next item is item `ordinal` of the epoch."""
    options: dict[str, Any] = {"executor": "inline", "epochs": entry.epoch + 1}
    if entry.state is not None:
        # What a state tells of stages is true by itself: only where to go on is another place.
        state = {**entry.state[1], "epoch": entry.epoch, "items": ordinal}
        try:
            return pipeline.loader(state=state, **options)
        except ResumeError:
            pass  # the graph has changed: what the state tells is no help
    loader = pipeline.loader(**options)
    if (entry.epoch, ordinal) != (0, 0):
        loader.seek(ordinal, epoch=entry.epoch)
    return loader


def _stream(loader: Loader, entry: Entry) -> Iterator[Any]:
    """Return the items of the epoch of `entry`; epochs before it are left without being made."""
    for stream in loader.by_epoch():
        if loader.epoch == entry.epoch:
            return stream
    raise PipelineError(f"the pipeline has no epoch {entry.epoch}")


def _made(stream: Iterator[Any], pipeline: Pipeline, *, debug: bool) -> Any:
    if not debug:
        return next(stream, _NOTHING)
    functions = [one for stage in pipeline.stages for one in functions_of(stage.operation)]
    codes = [code for one in functions if (code := code_of(one)) is not None]
    debugger = StageDebugger(codes, nosigint=True)
    made: list[Any] = []
    debugger.runcall(lambda: made.append(next(stream, _NOTHING)))
    if not made:
        raise BdbQuit  # the debugger was left before there was an item
    return made[0]


# -- in words


def _lines(made: Replay) -> Iterator[str]:
    one = made.recorded
    yield f"step {one.step}: item {one.ordinal} of epoch {one.epoch}, seed {made.seed}"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one.started + one.time_s))
    worker = "made by the loop's process" if one.worker is None else f"from worker {one.worker}"
    took = "" if one.busy_ms is None else f", which took {one.busy_ms:.3f} ms"
    yield f"delivered {when} UTC, {one.time_s:.3f} s after the run began, {worker}{took}"
    for origin in made.origins:
        yield f"from {origin.text}"
    for stage in made.stages:
        yield f"stage {stage.name}: {stage.items} items, {stage.seconds * 1e3:.3f} ms{_keys(stage)}"
    for line in shapes(made.item):
        yield f"item {line}"
    verdict = {True: "the same as recorded", False: "NOT the one that was recorded"}
    if made.same is None:
        yield f"digest {made.digest}; none was recorded"
    else:
        yield f"digest {made.digest}: {verdict[made.same]}"
    for change in made.changes:
        yield f"since then: {change}"


def _keys(stage: StageRun) -> str:
    if stage.rng == "epoch":
        return ", random numbers of the epoch"
    if not stage.numbers:
        return ""
    first, last = stage.numbers[0], stage.numbers[-1]
    which = f"item {first}" if len(stage.numbers) == 1 else f"items {first} to {last}"
    return f", random numbers of {which}"


def parts(item: Any, way: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a nested item is made of, each with the way to it.

    Example:
        >>> list(parts({"x": [1, (2, 3)]}))
        [('x.0', 1), ('x.1.0', 2), ('x.1.1', 3)]
    """
    if isinstance(item, dict):
        members = list(item.items())
    elif isinstance(item, (list, tuple)) and len(item) <= 1000:
        members = list(enumerate(item))
    else:
        yield way, item
        return
    for name, value in members:
        yield from parts(value, f"{way}.{name}" if way else str(name))


def shapes(item: Any) -> Iterator[str]:
    """Yield a line for every part of an item: what it is, and how large.

    Example:
        >>> list(shapes({"x": np.zeros((2, 3), np.float32), "name": "a"}))
        ['x: float32 (2, 3)', "name: str 'a'"]
    """
    for number, (way, value) in enumerate(parts(item)):
        if number == 50:
            yield "..."
            return
        shape = getattr(value, "shape", None)
        if shape is not None and hasattr(value, "dtype"):
            told = f"{value.dtype} {tuple(shape)}"
        else:
            told = f"{type(value).__name__} {_short(value)}"
        yield f"{way}: {told}" if way else told


def _short(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return f"of {len(value)} bytes"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
