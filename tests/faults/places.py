"""Where a worker may be struck: a pipeline for each place, with a fault in it.

Responsible for: `PLACES`, by name. Each makes its pipeline from a fault and says at which of its
items that strikes, so that what came before is known exactly. Everything here travels to workers of
every start method by reference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import splitpipe as sp
from splitpipe.testing.faults import Fault

COUNT = 200
AT = 60
"""The item that is struck, where it is not the first."""
LARGE = 100_000
"""Bytes of an array that travels in a slot."""


@dataclass(frozen=True)
class Place:
    """A place at which a worker is struck.

    Attributes:
        build: makes the pipeline of a fault.
        stage: name of the stage that is struck.
        before: how many items come before the struck one; all that a consumer can have got.
        item: which item the fault is to wait for.
        at: which call of the struck code, where it gets no item.
        epochs: how many the loader makes.
        serial: it is struck while something is pickled or restored: in processes alone.
        after_close: it is struck because the loader is closed.
    """

    build: Callable[[Fault], sp.Pipeline]
    stage: str
    before: int
    item: Any = None
    at: int | None = None
    epochs: int = 1
    serial: bool = False
    after_close: bool = False

    def fault(self, **options: Any) -> Fault:
        """Return a fault that strikes here."""
        if self.at is not None:
            return Fault(at=self.at, **options)
        return Fault(when=partial(_is, self.item), **options)


def _is(wanted: Any, item: Any) -> bool:
    return bool(np.all(np.asarray(item) == wanted))


def same(x: Any) -> Any:
    return x


def large(x: int) -> Any:
    return np.full(LARGE, x % 251, np.uint8)


def first_byte(array: Any) -> int:
    return int(array[0])


def halves(fault: Fault, x: int) -> Iterator[int]:
    yield 2 * x
    fault.strike(x)
    yield 2 * x + 1


def in_a_slot(fault: Fault, x: int) -> Any:
    array = sp.empty(LARGE)
    array[:] = x % 251
    fault.strike(x)
    return array


def beginning(fault: Fault, items: Iterable[int]) -> Iterator[int]:
    fault.strike()
    yield from items


def at_the_first_item(fault: Fault) -> sp.Pipeline:
    return sp.Pipeline(range(COUNT)).map(fault.before(same), workers=2, name="struck")


def in_the_middle_of_an_item(fault: Fault) -> sp.Pipeline:
    stage = partial(halves, fault)
    return sp.Pipeline(range(COUNT)).flat_map(stage, workers=2, name="struck")


def in_a_generator(fault: Fault) -> sp.Pipeline:
    return sp.Pipeline(range(COUNT)).through(fault.passing, workers=1, name="struck")


def while_serialising(fault: Fault) -> sp.Pipeline:
    return sp.Pipeline(range(COUNT)).map(fault.pickling, workers=2, name="struck")


def while_restoring(fault: Fault) -> sp.Pipeline:
    pipe = sp.Pipeline(range(COUNT)).map(fault.unpickling, workers=2, name="maker")
    return pipe.map(same, workers=1, name="struck")


def while_holding_a_slot(fault: Fault) -> sp.Pipeline:
    pipe = sp.Pipeline(range(COUNT)).map(large, workers=1, name="maker")
    return pipe.map(fault.before(first_byte), workers=1, name="struck")


def while_filling_a_slot(fault: Fault) -> sp.Pipeline:
    pipe = sp.Pipeline(range(COUNT)).map(partial(in_a_slot, fault), workers=2, name="struck")
    return pipe.map(first_byte, workers=0)


def between_an_item_and_the_next(fault: Fault) -> sp.Pipeline:
    return sp.Pipeline(range(COUNT)).through(fault.following, workers=1, name="struck")


def between_the_end_and_an_item(fault: Fault) -> sp.Pipeline:
    return sp.Pipeline(range(COUNT)).through(partial(beginning, fault), workers=1, name="struck")


def in_finally(fault: Fault) -> sp.Pipeline:
    return sp.Pipeline(range(COUNT)).through(fault.closing, workers=1, name="struck")


def at_close(fault: Fault) -> sp.Pipeline:
    return sp.Pipeline(forever).through(fault.closing, workers=1, name="struck")


def forever() -> Iterator[int]:
    x = 0
    while True:
        yield x
        x += 1


PLACES: dict[str, Place] = {
    "the first item": Place(at_the_first_item, "struck", 0, item=0),
    "in the middle of an item": Place(in_the_middle_of_an_item, "struck", 2 * AT + 1, item=AT),
    "in a generator": Place(in_a_generator, "struck", AT, item=AT),
    "serialising": Place(while_serialising, "struck", AT, item=AT, serial=True),
    "restoring": Place(while_restoring, "struck", AT, item=AT, serial=True),
    "holding a slot": Place(while_holding_a_slot, "struck", AT, item=AT),
    "filling a slot": Place(while_filling_a_slot, "struck", AT, item=AT),
    "between two items": Place(between_an_item_and_the_next, "struck", AT + 1, item=AT),
    "between end and item": Place(between_the_end_and_an_item, "struck", COUNT, at=1, epochs=2),
    "in finally": Place(in_finally, "struck", COUNT, at=0),
    "at close": Place(at_close, "struck", COUNT, at=0, after_close=True),
}


def stuck_at_close(items: Iterable[Any]) -> Iterator[Any]:
    """A stage that has to be killed."""
    try:
        yield from items
    except BaseException:  # closed between two items, or while it waits for one
        threading.Event().wait()
