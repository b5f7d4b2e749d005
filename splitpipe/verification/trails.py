"""What flowed between the stages of a run in this process.

Responsible for: the `Trail` of a run, the digest of everything that each source and stage gave, and
`first_apart`, the first of them at which two trails part; the `Examiner`, which looks at one stage
after another for what it must not do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from splitpipe.pipeline.stages.globals import Draw, Watch
from splitpipe.runtime.watching import Watched
from splitpipe.verification.streams import mark_of

__all__ = ["Examiner", "Layer", "Trail", "first_apart"]


@dataclass
class Layer:
    """What one source or stage gave in one epoch.

    Attributes:
        number: of the part of the graph.
        name: of the stage, or the source.
        inputs: numbers of what it reads.
        marks: digests, in order.
        source: whether it is one.
    """

    number: int
    name: str
    inputs: tuple[int, ...]
    marks: list[bytes] = field(default_factory=list)
    source: bool = False


class Trail:
    """A watcher that keeps the digest of everything."""

    def __init__(self) -> None:
        self.layers: dict[tuple[int, int], Layer] = {}

    def watch(self, watched: Watched, items: Iterator[Any]) -> Iterator[Any]:
        key, part = (watched.epoch, watched.number), watched.part
        layer = self.layers.get(key)
        if layer is None:
            layer = Layer(watched.number, watched.name, part.inputs, source=part.stage is None)
            self.layers[key] = layer
        return _marked(items, layer.marks)


def _marked(items: Iterator[Any], marks: list[bytes]) -> Iterator[Any]:
    for item in items:
        marks.append(mark_of(item)[0])
        yield item
        del item


def first_apart(
    one: dict[tuple[int, int], Layer], other: dict[tuple[int, int], Layer]
) -> Layer | None:
    """Return the first source or stage that gave something else although what it read was the same;
    None where there is none.

    A stage that was not asked for as much as the other time is not different.
    """
    apart: set[tuple[int, int]] = set()
    for key in sorted(one.keys() & other.keys()):
        left, right = one[key].marks, other[key].marks
        shorter = min(len(left), len(right))
        if left[:shorter] != right[:shorter]:
            apart.add(key)
    if not apart:  # something ended early, or did not: it had as much to read
        for key in sorted(one.keys() & other.keys()):
            if len(one[key].marks) != len(other[key].marks) and _read_alike(key, one, other):
                apart.add(key)
    return one[min(apart)] if apart else None


def _read_alike(
    key: tuple[int, int], one: dict[tuple[int, int], Layer], other: dict[tuple[int, int], Layer]
) -> bool:
    epoch = key[0]
    before = [(epoch, number) for number in one[key].inputs]
    return all(k in one and k in other and len(one[k].marks) == len(other[k].marks) for k in before)


@dataclass
class _Seen:
    """The item that a part gave last, and what was known of it then."""

    item: Any = None
    mark: bytes = b""


class Examiner:
    """A watcher that looks for stages which change what they are given, and for those that draw
    from generators of the whole process.

    Args:
        most: items to look at, of every part; looking takes some time.

    Attributes:
        changing: names of stages that change their input in place.
        drawing: generators that a stage draws from, by its name.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._last: dict[int, _Seen] = {}
        self._watch = Watch()
        self.changing: dict[str, None] = {}
        self.drawing: dict[str, set[str]] = {}

    def watch(self, watched: Watched, items: Iterator[Any]) -> Iterator[Any]:
        return self._examined(watched.number, watched.name, watched.part.inputs, items)

    def _examined(
        self, number: int, name: str, inputs: Sequence[int], items: Iterator[Any]
    ) -> Iterator[Any]:
        """Yield `items`: between what a stage took last and what it gives only it was at work."""
        for done, item in enumerate(items):
            if done < self._most:
                self._blame(name, self._watch.look())
                for one in inputs:
                    seen = self._last.get(one)
                    if seen is not None and mark_of(seen.item)[0] != seen.mark:
                        self.changing[name] = None
                        self._last.pop(one)
                self._last[number] = _Seen(item, mark_of(item)[0])
            else:
                self._last.pop(number, None)
            yield item
            del item
        self._last.pop(number, None)

    def _blame(self, name: str, draws: Sequence[Draw]) -> None:
        for draw in draws:
            self.drawing.setdefault(name, set()).add(draw.generator)
