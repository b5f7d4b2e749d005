"""From the records of a dataset to texts.

Responsible for: `Reader`, which reads the records of a block and takes out of each what is to be
tokenized, and `Texts`, the documents of a block: plain texts, or texts in typed parts.

Rules:
- of a dataset with columns only the column of the text is read;
- what has no text is an error that names the record, never an empty document;
- bytes are UTF-8, strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.schema import Schema
from splitpipe.storage.base import records_of
from splitpipe.tokens.packing import PLAIN

__all__ = ["Reader", "TextLike", "Texts", "make_reader"]

TextLike = str | Callable[[Any], Any] | None

_DEFAULT = "text"
_KINDS = ("str", "bytes", "json")


@dataclass(frozen=True, slots=True)
class Texts:
    """The documents of a block.

    Attributes:
        texts: of all parts of all documents, in order.
        counts: how many parts each document has; ``None`` when all are plain texts.
        kinds: the type of each part; ``None`` likewise.
    """

    texts: list[str]
    counts: npt.NDArray[np.int64] | None = None
    kinds: list[str] | None = None

    def document_of(self, part: int) -> int:
        """The document that a part belongs to."""
        if self.counts is None:
            return part
        return int(np.searchsorted(np.cumsum(self.counts), part, side="right"))


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads records and takes their texts out of them; travels to other processes.

    Attributes:
        source: a dataset, the records under one, any Sequence, or ``None`` for values that are
            handed in.
        column: of `source`, if it has columns and one of them is the text.
        text: the member of a dict, or the function, that gives the text of a value.
    """

    source: Any
    column: str | None = None
    text: TextLike = None

    def values(self, start: int, stop: int) -> Sequence[Any]:
        """Records ``start`` to ``stop - 1``, or their column."""
        source = self.source
        if hasattr(source, "read"):  # records under a dataset
            rows = np.arange(start, stop, dtype=np.int64)
            names = list(source.schema) if self.column is None else [self.column]
            batch = source.read(rows, names)
            if self.column is None:
                return records_of(source.schema, batch)
            column: Sequence[Any] = batch[self.column]
            return column
        if self.column is not None:
            taken = source.get_batch(np.arange(start, stop), columns=[self.column])
            named: Sequence[Any] = taken[self.column]
            return named
        if hasattr(source, "get_batch") or isinstance(source, list | tuple):
            sliced: Sequence[Any] = source[start:stop]
            return sliced
        return [source[row] for row in range(start, stop)]

    def texts(self, values: Sequence[Any], first: int) -> Texts:
        """The documents of records, of which the first is record `first`.

        Raises:
            FormatError: a record has no text, or no text that can be understood.
        """
        if callable(self.text):
            values = [self._called(value, row) for row, value in enumerate(values, first)]
        if set(map(type, values)) == {str}:
            return Texts(list(values))
        documents = [self._parts(value, row) for row, value in enumerate(values, first)]
        if not any(typed for _, _, typed in documents):
            return Texts([texts[0] for texts, _, _ in documents])
        counts = np.fromiter((len(texts) for texts, _, _ in documents), np.int64, len(documents))
        return Texts(
            list(chain.from_iterable(texts for texts, _, _ in documents)),
            counts,
            list(chain.from_iterable(kinds for _, kinds, _ in documents)),
        )

    def _called(self, value: Any, row: int) -> Any:
        assert callable(self.text)
        try:
            return self.text(value)
        except Exception as error:
            error.add_note(f"in text={self.text!r}, record {row} of {self.describe()}")
            raise

    def _parts(self, value: Any, row: int) -> tuple[list[str], list[str], bool]:
        """Texts and types of a document's parts, and whether it has any."""
        if isinstance(value, Mapping) and not callable(self.text):
            name = self.text or _DEFAULT
            if name not in value:
                has = ", ".join(map(repr, value)) or "nothing"
                raise self._bad(row, f"it has no {name!r}; it has {has}")
            value = value[name]
        if isinstance(value, str | bytes | bytearray | memoryview):
            return [self._decoded(value, row)], [PLAIN], False
        if value is None:
            raise self._bad(row, "its text is missing: leave such records out before")
        if not isinstance(value, list | tuple):
            raise self._bad(row, f"a {type(value).__name__} is not text")
        pairs = [self._part(part, row) for part in value]
        return [text for _, text in pairs], [kind for kind, _ in pairs], True

    def _part(self, part: Any, row: int) -> tuple[str, str]:
        kind = text = None
        if isinstance(part, Mapping):
            kind = part.get("type", part.get("role"))
            text = part.get("text", part.get("content"))
        elif isinstance(part, list | tuple) and len(part) == 2:
            kind, text = part
        if not isinstance(kind, str) or not isinstance(text, str | bytes | bytearray | memoryview):
            raise self._bad(
                row,
                f"{_short(part)} is no part: use (type, text), or a dict with type or role and "
                "with text or content",
            )
        return kind, self._decoded(text, row)

    def _decoded(self, text: str | bytes | bytearray | memoryview, row: int) -> str:
        if isinstance(text, str):
            return text
        try:
            return str(text, "utf-8")
        except UnicodeDecodeError as error:
            raise self._bad(
                row, f"its bytes are not UTF-8: {error.reason} at byte {error.start}"
            ) from error

    def _bad(self, row: int, why: str) -> FormatError:
        return FormatError(f"record {row} of {self.describe()} cannot be tokenized: {why}")

    def describe(self) -> str:
        """The source in words."""
        if self.source is None:
            return "the stream"
        source = self.source
        plain = isinstance(source, list | tuple)  # whose repr has everything in it
        text = "" if plain else repr(source)
        if plain or len(text) > 120:
            text = f"a {type(source).__name__} of {len(source)}"
        return text if self.column is None else f"column {self.column!r} of {text}"


def make_reader(source: Any, text: TextLike) -> Reader:
    """The reader of a source with random access.

    Raises:
        FormatError: it has no such text.
    """
    schema = getattr(source, "schema", None)
    if not isinstance(schema, Schema) or callable(text) or schema.bare:
        return Reader(source, None, text)
    if text is None and len(schema) == 1:
        text = next(iter(schema))
    name = text or _DEFAULT
    fitting = [name for name, field in schema.items() if field.kind in _KINDS]
    if name not in fitting:
        others = ", ".join(map(repr, fitting)) or "none"
        why = f"column {name!r} is no text" if name in schema else f"there is no column {name!r}"
        raise FormatError(f"{source!r}: {why}; say text=, a column ({others}) or a function")
    return Reader(source, name, None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
