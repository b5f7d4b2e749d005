"""Tokenizing a block of documents: what workers do.

Responsible for: `EncodeBlock`, from records to one array of tokens, and `Encoded`, what travels to
the one process that packs.

Rules:
- what a block gives depends on its documents alone, not on who encodes it, nor on its neighbours;
- tokens travel as one array of the final dtype, with the documents' ends in their places; never as
  lists;
- an error names the record; the tokenizer's own exceptions stay what they are;
- a record that is skipped keeps its number: it is a document without a token, and is counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.pipeline.allocate import empty
from splitpipe.tokens.encoder import BadIds, Encoder, Ids, Lengths, flatten
from splitpipe.tokens.packing import PLAIN, Packing
from splitpipe.tokens.texts import Reader, Texts

__all__ = ["EncodeBlock", "Encoded"]

# What a tokenizer is given at once: some hold a hundred bytes and more a token until they return.
_MOST_CHARACTERS = 1 << 20


class Encoded(NamedTuple):
    """A block of documents as tokens.

    Attributes:
        first: the number of its first document.
        tokens: of all its documents, begins and ends among them.
        lengths: how many of them are of each document.
        mask: for each token whether it counts for the loss; ``None`` when that was not asked for.
        kinds: tokens of each part type; empty when there are none.
        skipped: places in the block of documents that could not be tokenized; they have no token,
            begin and end included.
        faults: what was wrong with them.
    """

    first: int
    tokens: npt.NDArray[Any]
    lengths: Lengths
    mask: npt.NDArray[np.uint8] | None
    kinds: dict[str, int]
    skipped: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodeBlock:
    """Tokenizes blocks; travels to workers.

    Attributes:
        reader: of the records.
        encoder: the tokenizer.
        packing: what samples look like.
        size: documents a block, at most.
        alone: whether no other worker tokenizes at the same time.
        skips: whether records that cannot be tokenized are skipped.
    """

    reader: Reader
    encoder: Encoder
    packing: Packing
    size: int
    alone: bool
    skips: bool = False

    def at(self, first: int) -> Encoded:
        """The block that begins at record `first` of the source."""
        stop = min(first + self.size, len(self.reader.source))
        try:
            values = self.reader.values(first, stop)
        except FormatError:
            if not self.skips:
                raise
            # One of them cannot be read.
            return self._one_by_one(first, stop - first, self._read)
        return self.given((first, values))

    def given(self, numbered: tuple[int, Sequence[Any]]) -> Encoded:
        """The block of these records, after the number of the first of them."""
        first, values = numbered
        if not self.alone:
            # Workers are as many as the user wants; a tokenizer's threads would multiply them.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            return self._together(first, values)
        except Exception as error:
            if not self.skips or not _is_its_own_fault(error):
                raise
        return self._one_by_one(first, len(values), lambda row: values[row - first])

    def _read(self, row: int) -> Any:
        (value,) = self.reader.values(row, row + 1)
        return value

    def _one_by_one(self, first: int, count: int, value_at: Callable[[int], Any]) -> Encoded:
        """The block of those records that can be tokenized."""
        found: dict[int, Encoded] = {}
        faults: dict[int, str] = {}
        for place in range(count):
            row = first + place
            try:
                found[place] = self._together(row, [value_at(row)])
            except Exception as error:
                if not _is_its_own_fault(error):
                    raise
                named = isinstance(error, FormatError)
                faults[place] = str(error) if named else self._described(row, error)
        lengths = np.zeros(count, np.int64)
        kinds: Counter[str] = Counter()
        for place, block in found.items():
            lengths[place] = len(block.tokens)
            kinds.update(block.kinds)
        masks = [block.mask for block in found.values() if block.mask is not None]
        no_mask = None if self.packing.loss is None else np.empty(0, np.uint8)
        tokens = [block.tokens for block in found.values()]
        return Encoded(
            first,
            np.concatenate([np.empty(0, self.packing.dtype), *tokens]),
            lengths,
            np.concatenate(masks) if masks else no_mask,
            dict(kinds),
            tuple(faults),
            tuple(faults.values()),
        )

    def _described(self, row: int, error: Exception) -> str:
        what = f"{type(error).__name__}: {error}"
        return f"record {row} of {self.reader.describe()} cannot be tokenized: {what}"

    def _together(self, first: int, values: Sequence[Any]) -> Encoded:
        documents = self.reader.texts(values, first)
        self._check_kinds(documents, first)
        ids, lengths = self._encoded(documents, first)
        self._check(ids, lengths, documents, first)
        return _assembled(first, ids, lengths, documents, self.packing)

    def _encoded(self, documents: Texts, first: int) -> tuple[Ids, Lengths]:
        parts = [
            self._encode(documents, start, stop, first) for start, stop in _slices(documents.texts)
        ]
        if len(parts) == 1:
            return parts[0]
        return (
            np.concatenate([ids for ids, _ in parts] or [np.empty(0, np.uint32)]),
            np.concatenate([lengths for _, lengths in parts] or [np.empty(0, np.int64)]),
        )

    def _encode(self, documents: Texts, start: int, stop: int, first: int) -> tuple[Ids, Lengths]:
        texts = documents.texts[start:stop]
        try:
            return flatten(self.encoder.encode(texts), len(texts))
        except BadIds as error:
            row = first + documents.document_of(start + error.at)
            raise self._bad(row, error.why) from None
        except FormatError:
            raise
        except Exception as error:
            error.add_note(self._blame(documents, range(start, stop), first))
            raise

    def _blame(self, documents: Texts, parts: range, first: int) -> str:
        """Say at which record a tokenizer failed that was given several: one by one they tell."""
        for part in parts:
            try:
                self.encoder.encode([documents.texts[part]])
            except Exception:
                row = first + documents.document_of(part)
                return f"while tokenizing record {row} of {self.reader.describe()}"
        last = first + documents.document_of(parts[-1])
        row = first + documents.document_of(parts[0])
        return f"while tokenizing records {row} to {last} of {self.reader.describe()}"

    def _check(self, ids: Ids, lengths: Lengths, documents: Texts, first: int) -> None:
        limit = self.packing.limit
        if not ids.size or int(ids.max()) < limit:
            return
        at = int(np.argmax(ids >= limit))
        part = int(np.searchsorted(np.cumsum(lengths), at, side="right"))
        raise self._bad(
            first + documents.document_of(part),
            f"token id {ids[at]} is out of the range of {self.packing.dtype} and a vocabulary of "
            f"{self.encoder.vocabulary or limit:,}: the tokenizer gives more ids than it was said "
            "to have (vocabulary=, dtype=)",
        )

    def _check_kinds(self, documents: Texts, first: int) -> None:
        """Refuse part types of which nobody said whether they count."""
        loss = self.packing.loss
        if loss is None:
            return
        kinds = documents.kinds or ([] if documents.kinds is not None else [PLAIN])
        for kind in sorted(set(kinds)):
            try:
                loss.counts(kind)
            except FormatError as error:
                row = first + documents.document_of(kinds.index(kind))
                raise self._bad(row, str(error)) from None

    def _bad(self, row: int, why: str) -> FormatError:
        return FormatError(f"record {row} of {self.reader.describe()} cannot be tokenized: {why}")


def _is_its_own_fault(error: Exception) -> bool:
    """Whether a record is to blame, and not the disk or the memory."""
    return not isinstance(error, OSError | MemoryError)


def _slices(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Cut texts into runs of bounded size; one that is larger stands alone."""
    start = room = 0
    for at, size in enumerate(map(len, texts)):
        if size > room and at > start:
            yield start, at
            start, room = at, _MOST_CHARACTERS
        elif at == start:
            room = _MOST_CHARACTERS
        room -= size
    if start < len(texts):
        yield start, len(texts)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the documents of a block lie in its array.

    Attributes:
        starts: the first token of each document.
        stops: the one after its last.
        inner: whether a token is one of a text, not a begin or an end; ``None`` where all are.
    """

    starts: Lengths
    stops: Lengths
    inner: npt.NDArray[np.bool_] | None

    @classmethod
    def of(cls, lengths: Lengths, packing: Packing) -> _Frame:
        """The frame of documents with these numbers of tokens, begins and ends counted."""
        stops = np.cumsum(lengths)
        starts = stops - lengths
        inner = None
        if packing.bos is not None or packing.eos is not None:
            inner = np.ones(int(stops[-1]) if len(stops) else 0, np.bool_)
            if packing.bos is not None:
                inner[starts] = False
            if packing.eos is not None:
                inner[stops - 1] = False
        return cls(starts, stops, inner)

    def filled(
        self, values: npt.NDArray[Any], dtype: str, bos: int | None, eos: Any
    ) -> npt.NDArray[Any]:
        """An array with `values` for the tokens of texts, `bos` and `eos` for the others."""
        total = int(self.stops[-1]) if len(self.stops) else 0
        filled = empty(total, dtype)
        if self.inner is None:
            filled[:] = values
            return filled
        filled[self.inner] = values
        if bos is not None:
            filled[self.starts] = bos
        if eos is not None:
            filled[self.stops - 1] = eos
        return filled


def _assembled(
    first: int, ids: Ids, lengths: Lengths, documents: Texts, packing: Packing
) -> Encoded:
    """Put begins and ends between the documents, and make the mask."""
    parts = lengths
    kinds: dict[str, int] = {}
    if documents.counts is None or documents.kinds is None:
        kinds[PLAIN] = int(lengths.sum())
    else:
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        edges = np.concatenate([[0], np.cumsum(documents.counts)])
        lengths = np.diff(bounds[edges])
        for kind, tokens in zip(documents.kinds, parts.tolist(), strict=True):
            kinds[kind] = kinds.get(kind, 0) + tokens
    lengths = lengths + (packing.bos is not None) + (packing.eos is not None)
    frame = _Frame.of(lengths, packing)
    tokens = frame.filled(ids, packing.dtype, packing.bos, packing.eos)
    mask = None if packing.loss is None else _mask(frame, parts, documents, packing)
    return Encoded(first, tokens, lengths, mask, kinds)


def _mask(
    frame: _Frame, parts: Lengths, documents: Texts, packing: Packing
) -> npt.NDArray[np.uint8]:
    """One for every token that counts. An end counts if the last part of its document does."""
    assert packing.loss is not None
    bos = None if packing.bos is None else 0
    if documents.counts is None or documents.kinds is None:
        plain = packing.loss.counts(PLAIN)
        inner = np.full(int(parts.sum()), plain, np.uint8)
        return frame.filled(inner, "uint8", bos, None if packing.eos is None else plain)
    known = {kind: packing.loss.counts(kind) for kind in set(documents.kinds)}
    # A document without parts looks at the False behind all others.
    values = np.array([*(known[kind] for kind in documents.kinds), False], np.uint8)
    edges = np.cumsum(documents.counts)
    last = values[np.where(documents.counts > 0, edges - 1, -1)]
    eos = None if packing.eos is None else last
    return frame.filled(np.repeat(values[:-1], parts), "uint8", bos, eos)
