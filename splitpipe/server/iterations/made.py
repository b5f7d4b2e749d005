"""What a stream of an iteration gives.

Responsible for: `Made`, `Ended`, `Broken` and `Failure`, as values.

Rules:
- over a whole stream, samples + filtered + failed of all that was made and of its end are the
  records that were read: nobody has to be asked what became of one;
- a failure is told in words and numbers, never as the exception itself: it goes to people, to a
  database and to other machines.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Broken", "Ended", "Event", "Failure", "Made", "failure_of", "place"]

_MESSAGE_CHARACTERS = 2_000
_DETAIL_CHARACTERS = 16_000

_PLACE = re.compile(r"(?P<stage>.+): (?:batch of \d+ from )?record (?P<row>\d+) of the dataset")


class Failure(NamedTuple):
    """Something that could not be read or made.

    Attributes:
        stage: where: ``read``, ``decode``, the name of a module, ``collate``, ``encode``, or a
            stage of the pipeline.
        record: the row of the dataset; of a batch, the first of its rows; -1 where nobody knows.
        kind: the type of the exception.
        message: what it said.
        details: its traceback, cut where it is long.
    """

    stage: str
    record: int
    kind: str
    message: str
    details: str = ""

    @classmethod
    def of(cls, error: BaseException, stage: str, record: int = -1) -> Failure:
        """Return what there is to say of an exception.

        Example:
            >>> str(Failure.of(KeyError("x"), "long_enough", 7))
            "long_enough failed for record 7: KeyError: 'x'"
        """
        message = _text(error)[:_MESSAGE_CHARACTERS]
        notes = "\n".join(getattr(error, "__notes__", ()))
        lines = "".join(traceback.format_exception(error, limit=-20))
        details = lines if notes in lines else f"{lines}\n{notes}"
        return cls(stage, record, type(error).__name__, message, details[-_DETAIL_CHARACTERS:])

    def to_json(self) -> dict[str, Any]:
        """Return it as a dict of values of JSON."""
        return dict(self._asdict())

    @classmethod
    def from_json(cls, told: Sequence[Any]) -> Failure:
        """Return what was stored as a list."""
        stage, record, kind, message, details = told
        return cls(str(stage), int(record), str(kind), str(message), str(details))

    def __str__(self) -> str:
        at = f" for record {self.record}" if self.record >= 0 else ""
        return f"{self.stage} failed{at}: {self.kind}: {self.message}"


class Made(NamedTuple):
    """A batch.

    Attributes:
        sequence: its number in the stream, from 0.
        frames: it, encoded (`splitpipe.wire.values`).
        samples: records that are in it.
        filtered: records that were left out since the batch before, by a filter or drop_last.
        failed: records that were left out since then because something failed.
        failures: the first of those.
        category: what its samples have in common, where there is a categorizer.
    """

    sequence: int
    frames: Sequence[Any]
    samples: int
    filtered: int = 0
    failed: int = 0
    failures: tuple[Failure, ...] = ()
    category: Any = None


class Ended(NamedTuple):
    """There are no more batches.

    Attributes:
        batches: how many there were, from the beginning of the stream.
        samples: records that were in all of them.
        filtered: records left out behind the last batch.
        failed: records that failed behind the last batch.
        failures: the first of those.
    """

    batches: int
    samples: int
    filtered: int = 0
    failed: int = 0
    failures: tuple[Failure, ...] = ()


class Broken(NamedTuple):
    """The stream cannot go on.

    Attributes:
        sequence: the number of the batch that could not be made.
        error: why.
    """

    sequence: int
    error: Failure


Event: TypeAlias = Made | Ended | Broken


def place(stage: str, row: int, samples: int = 1) -> str:
    """Return the note of an exception that says where it was raised: notes go wherever it goes.

    Example:
        >>> place("long_enough", 7)
        'long_enough: record 7 of the dataset'
    """
    whole = f"batch of {samples} from " if samples > 1 else ""
    return f"{stage}: {whole}record {row} of the dataset"


def failure_of(error: BaseException) -> Failure:
    """Return what there is to say of an exception that ended a stream, with its `place`."""
    for note in getattr(error, "__notes__", ()):
        found = _PLACE.fullmatch(note)
        if found is not None:
            return Failure.of(error, found["stage"], int(found["row"]))
    return Failure.of(error, "pipeline")


def _text(error: BaseException) -> str:
    """``str(error)``, of which user code may make a mess, as text that can be sent."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return "<its str() failed>"
