"""Where an error was raised, in words of the user.

Responsible for: `Scene`, what is known of the stages of one process while they run, and the notes
that it adds to an error: in which stage, at which item, and which record that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from splitpipe.errors import NotPicklable
from splitpipe.pipeline.graph import Body
from splitpipe.pipeline.source import SequenceSource
from splitpipe.runtime.cursor import Cursor
from splitpipe.runtime.failure import failing_stage

__all__ = ["Scene"]


class Scene(NamedTuple):
    """What is known of stages that run.

    Attributes:
        body: the stages.
        epoch: which pass over the source.
        cursors: how far each input was read, by the number of its part.
        sources: what yields the items of the inputs.
    """

    body: Body
    epoch: int
    cursors: Mapping[int, Cursor]
    sources: Iterable[Iterator[Any]]

    def where(self, error: BaseException, worker: str) -> tuple[str, ...]:
        """Return notes that say in which stage and at which item `error` was raised."""
        stages = self.body.stages
        name = failing_stage(error, stages, self.sources)
        if name is None and isinstance(error, NotPicklable) and stages:
            name = stages[-1].name
        heads = self._heads_of(name)
        counted = name is not None
        if name is None:
            name = "source"  # it failed at an item that nobody could count any more
        at = [self._at(head, counted=counted) for head in heads]
        which = "input item" if len(at) == 1 else "input items"
        numbers = ", ".join(map(str, at))
        notes = [f"in stage {name!r} ({worker}), epoch {self.epoch}, {which} {numbers}"]
        for head, position in zip(heads, at, strict=True):
            source = self.body.parts[head].source
            if isinstance(source, SequenceSource) and position < len(source):
                epoch = 0 if self.body.parts[head].frozen else self.epoch
                notes.append(source.describe(position, epoch))
        return tuple(notes)

    def _at(self, head: int, *, counted: bool) -> int:
        cursor = self.cursors[head]
        return cursor.treated if counted else cursor.position

    def _heads_of(self, name: str | None) -> list[int]:
        """Return the heads that the stage `name` depends on; all where there is no such stage."""
        parts = self.body.parts
        found = [n for n, part in enumerate(parts) if part.stage and part.stage.name == name]
        heads: set[int] = set()
        while found:
            number = found.pop()
            found += parts[number].inputs
            if parts[number].stage is None:
                heads.add(number)
        return sorted(heads) or list(self.body.heads)
