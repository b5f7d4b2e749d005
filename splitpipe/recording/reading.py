"""Reading a recording: what was step N?

Responsible for: `Recording`, all files of a folder, and the `Entry` of a step with the heading and
the state that belong to it.

Rules:
- a line that is not whole ends nothing: it is counted (`damaged`) and left out, as what a killed
  program was about to write;
- of two entries of one step the later one counts: a run that was resumed went on from there;
- files are read when something is asked that they may know, the latest first.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from splitpipe.errors import StorageError, UnsupportedVersion
from splitpipe.recording.lines import decode
from splitpipe.recording.segments import segment_paths

__all__ = ["Entry", "Recording"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One item that was delivered.

    Attributes:
        step: its number, from 0, over epochs and resumed runs.
        epoch: of the loader.
        ordinal: its number in the epoch.
        time_s: when the message that brought it came, since the run began.
        together: items that came in that message.
        worker: number of the worker that sent it; None for what was made by the loop's process.
        busy_ms: what that worker worked for the message; None as well.
        nbytes: of the message; None as well.
        positions: of the source, first and behind the last, that went into the message; None where
            only making it again tells.
        digest: of its content, where that was recorded.
        state: of the loader, from where it is made again: how many items of the epoch came before,
            at least one less than before this item, and the state.
        heading: of the run: how the pipeline is loaded, its stages, the program.
    """

    step: int
    epoch: int
    ordinal: int
    time_s: float
    together: int = 1
    worker: int | None = None
    busy_ms: float | None = None
    nbytes: int | None = None
    positions: tuple[int, int] | None = None
    digest: str | None = None
    state: tuple[int, Mapping[str, Any]] | None = None
    heading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def started(self) -> float:
        """When its run began, in seconds since 1970."""
        return float(self.heading.get("started", 0.0))


class Recording:
    """The files that a loader with ``record=directory`` wrote.

    Args:
        directory: the same.
        missing_ok: a folder that is not there is one without files.

    Raises:
        StorageError: there is no such folder, or nothing was recorded there.
    """

    def __init__(self, directory: str | os.PathLike[str], *, missing_ok: bool = False) -> None:
        self.directory = os.fspath(directory)
        try:
            self._paths = segment_paths(directory)
        except StorageError:
            if not missing_ok:
                raise
            self._paths = []
        if not self._paths and not missing_ok:
            raise StorageError(f"nothing was recorded in {self.directory}")

    @property
    def damaged(self) -> int:
        """How many lines are not whole."""
        return sum(segment.damaged for segment in self._segments())

    @property
    def steps(self) -> tuple[int, int]:
        """The first and the last step that are there.

        Raises:
            StorageError: there is none.
        """
        found = [bounds for segment in self._segments() if (bounds := segment.steps) is not None]
        if not found:
            raise StorageError(f"no step was recorded in {self.directory}")
        return min(first for first, _ in found), max(last for _, last in found)

    def runs(self) -> list[dict[str, Any]]:
        """Return the heading of every run, the first first, and how it ended."""
        made: dict[str, dict[str, Any]] = {}
        for segment in reversed(list(self._segments())):
            run = made.setdefault(str(segment.heading.get("run")), dict(segment.heading))
            run["end"] = segment.end or run.get("end")
        return list(made.values())

    def entry(self, step: int) -> Entry:
        """Return the entry of a step.

        Raises:
            StorageError: it was not recorded, or its file was removed to make room.
        """
        for segment in self._segments():
            found = segment.find(step)
            if found is not None:
                return found
        first, last = self.steps
        raise StorageError(
            f"step {step} is not among those that {self.directory} still has: {first} to {last}"
        )

    def entries(self) -> Iterator[Entry]:
        """Yield an entry for every step that is there, once, in order."""
        first, last = self.steps
        for step in range(first, last + 1):
            for segment in self._segments():
                found = segment.find(step)
                if found is not None:
                    yield found
                    break

    def step_of(self, epoch: int, ordinal: int) -> int | None:
        """Return the step of an item by its place; None where nothing is known of it."""
        for segment in self._segments():
            found = segment.step_of(epoch, ordinal)
            if found is not None:
                return found
        return None

    def _segments(self) -> Iterator[_Segment]:
        """Yield all files, the latest first."""
        for path in reversed(self._paths):
            segment = self._known.get(path)
            if segment is None:
                segment = self._known[path] = _Segment.read(path)
            yield segment

    @cached_property
    def _known(self) -> dict[Path, _Segment]:
        return {}


class _Segment:
    """One file."""

    def __init__(self, heading: dict[str, Any]) -> None:
        self.heading = heading
        self.damaged = 0
        self.end: dict[str, Any] | None = None
        self._entries: list[dict[str, Any]] = []
        self._states: list[dict[str, Any]] = []
        self._graph: Any = None
        self._moved = 0  # entries before the last jump: those behind it count first

    @classmethod
    def read(cls, path: Path) -> _Segment:
        """Read a whole file.

        Raises:
            UnsupportedVersion: a newer splitpipe wrote it.
            StorageError: it cannot be read.
        """
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise StorageError(
                error.errno, f"cannot be read: {error.strerror}", str(path)
            ) from error
        documents = [decode(line) for line in lines]
        heading = documents[0] if documents else None
        version = (heading or {}).get("splitpipe_recording")
        if isinstance(version, int) and version > VERSION:
            raise UnsupportedVersion(
                f"{path} is a recording of version {version}; this splitpipe reads {VERSION}"
            )
        segment = cls(heading or {})
        for document in documents[1:]:
            segment._add(document)
        segment.damaged += heading is None and bool(documents)
        return segment

    @property
    def steps(self) -> tuple[int, int] | None:
        """The first and the last."""
        if not self._entries:
            return None
        return (
            min(entry["step"] for entry in self._entries),
            max(entry["step"] + entry["n"] - 1 for entry in self._entries),
        )

    def find(self, step: int) -> Entry | None:
        """Return the entry of a step; the later one of two."""
        for line in self._around("step", step):
            if line["step"] <= step < line["step"] + line["n"]:
                return self._entry(line, step)
        return None

    def step_of(self, epoch: int, ordinal: int) -> int | None:
        """Return the step at a place: one that was recorded, or that behind the last one."""
        for line in reversed(self._entries):
            if line["epoch"] == epoch and line["at"] <= ordinal <= line["at"] + line["n"]:
                return int(line["step"] + ordinal - line["at"])
        begins = self.heading.get("begins", {})
        if (begins.get("epoch"), begins.get("at")) == (epoch, ordinal):
            return int(begins["step"])
        end = self.end or {}
        if ordinal == 0 and end.get("ended") == epoch - 1:
            return int(end["step"])
        return None

    def _around(self, key: str, value: int) -> Iterator[dict[str, Any]]:
        """Yield entries that may cover a value, the latest first."""
        behind = self._entries[self._moved :]
        place = bisect_right(behind, value, key=lambda line: int(line[key]))
        if place:
            yield behind[place - 1]
        yield from reversed(self._entries[: self._moved])

    def _add(self, document: dict[str, Any] | None) -> None:
        if document is None:
            self.damaged += 1
        elif "n" in document:
            before = self._entries[-1] if len(self._entries) > self._moved else None
            if before is not None:
                # Of what was noted beforehand only this much was delivered.
                before["n"] = min(before["n"], document["step"] - before["step"])
            self._entries.append(document)
        elif "state" in document:
            self._states.append(self._with_graph(document))
        elif "moved" in document:
            self._moved = len(self._entries)
        elif {"ended", "closed", "failed"} & document.keys():
            self.end = document
            if self._entries and len(self._entries) > self._moved:
                last = self._entries[-1]
                last["n"] = min(last["n"], document["step"] - last["step"])

    def _with_graph(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a line of a state with what it says of the graph, which stands in the first."""
        state = document["state"]
        if state is not None and "graph" in state:
            self._graph = state["graph"]
        elif state is not None and self._graph is not None:
            document["state"] = {**state, "graph": self._graph}
        return document

    def _entry(self, line: dict[str, Any], step: int) -> Entry:
        ordinal = line["at"] + step - line["step"]
        span = (line["from"], line["to"]) if "from" in line else None
        states = [
            (state["at"], state["state"])
            for state in self._states
            if state["epoch"] == line["epoch"] and state["at"] < max(1, ordinal) and state["state"]
        ]
        return Entry(
            step,
            line["epoch"],
            ordinal,
            line["t"],
            line["n"],
            line.get("worker"),
            line.get("ms"),
            line.get("bytes"),
            span,
            line.get("digest"),
            max(states, key=lambda pair: pair[0], default=None),
            self.heading,
        )
