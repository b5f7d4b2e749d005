"""Cutting the stream of tokens into samples.

Responsible for: `Packer`, the one place through which all tokens go in order: it fills samples,
makes the arrays that follow from where documents begin, keeps or drops or pads what remains, and
counts. `Sink`, what takes the samples.

Rules:
- no Python runs for a single token or, where samples have a length, for a single document;
- memory is bounded: a few MiB of samples, one block of documents;
- ``samples * length == tokens - dropped + padding``, and that is asserted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.tokens.blocks import Encoded
from splitpipe.tokens.packing import Packing

__all__ = ["Counts", "Packer", "Sink"]

_BUFFER_NBYTES = 4 << 20
# Of so many skipped records it is told what was wrong with them.
_FAULTS = 10
_PADDING = {"loss_mask": 0, "document": -1, "position": 0, "local_position": 0}

Array = npt.NDArray[Any]


class Sink(Protocol):
    """Takes samples."""

    def write(self, samples: Mapping[str, Sequence[Array]]) -> None:
        """Take some samples, by array; what is given may be used again afterwards.

        Args:
            samples: by name equally many arrays of shape (n,), as a list or as one array.
        """


@dataclass(slots=True)
class Counts:
    """What went through a packer.

    Attributes:
        documents: how many there were, those that were skipped included.
        skipped: how many of them could not be tokenized.
        empty: how many of the others had no token of their own.
        tokens: of all documents, begins and ends among them.
        samples: that were made.
        dropped: tokens at the end that filled no sample.
        padding: tokens that were put behind the last document.
        parts: tokens of each part type, begins and ends not among them.
        faults: what was wrong with the first ones that were skipped.
    """

    documents: int = 0
    skipped: int = 0
    empty: int = 0
    tokens: int = 0
    samples: int = 0
    dropped: int = 0
    padding: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def copy(self, samples: int) -> Counts:
        """The same, with another number of samples."""
        return replace(self, samples=samples, parts=dict(self.parts), faults=list(self.faults))


class Packer:
    """Makes samples of blocks.

    Args:
        packing: what samples look like.
        sink: takes them.
        dtypes: of the arrays, as `Packing.dtypes` gives them.
        earlier: what `checkpoint` gave to an earlier run that this one goes on from. The next
            block is to be that of document ``earlier.documents``.
        last: the tokens of that run's last sample.

    Example:
        >>> import numpy as np
        >>> class Printing:
        ...     def write(self, samples): print([row.tolist() for row in samples["tokens"]])
        >>> packer = Packer(Packing(3), Printing(), {"tokens": "uint16"})
        >>> tokens, lengths = np.arange(8, dtype="uint16"), np.array([2, 6])
        >>> packer.add(Encoded(0, tokens, lengths, None, {}))
        >>> packer.finish().dropped
        [[0, 1, 2], [3, 4, 5]]
        2
    """

    def __init__(
        self,
        packing: Packing,
        sink: Sink,
        dtypes: Mapping[str, str],
        *,
        earlier: Counts | None = None,
        last: Array | None = None,
    ) -> None:
        self._packing = packing
        self._sink = sink
        self._dtypes = dict(dtypes)
        self._extra = (packing.bos is not None) + (packing.eos is not None)
        self.counts = Counts() if earlier is None else earlier.copy(earlier.samples)
        # How many of the next tokens are in samples already, which end with `last`.
        self._known = 0
        if packing.length is not None:
            self._known = self.counts.samples * packing.length - self.counts.tokens
        self._last = last
        # The counts before every block that has a token which is in no sample yet.
        self._starts: deque[Counts] = deque()
        self._filled = 0
        self._buffers: dict[str, Array] = {}
        if packing.length is not None:
            widest = sum(np.dtype(dtype).itemsize for dtype in dtypes.values())
            rows = max(1, _BUFFER_NBYTES // (widest * packing.length))
            size = rows * packing.length
            self._buffers = {name: np.empty(size, dtype) for name, dtype in dtypes.items()}

    def add(self, block: Encoded) -> None:
        """Go on with the documents of a block.

        Raises:
            FormatError: a document has more tokens than positions can be told of; or these are
                not the tokens that an earlier run had.
        """
        counts = self.counts
        if block.first != counts.documents:
            raise AssertionError(f"block of document {block.first} after {counts.documents}")
        streams = self._streams(block)
        if self._starts and self._starts[-1].tokens == counts.tokens:
            self._starts.pop()
        self._starts.append(counts.copy(counts.samples))
        counts.documents += len(block.lengths)
        counts.empty += int(np.count_nonzero(block.lengths == self._extra))
        counts.empty -= 0 if self._extra else len(block.skipped)
        counts.skipped += len(block.skipped)
        counts.faults += block.faults[: max(0, _FAULTS - len(counts.faults))]
        for kind, tokens in block.kinds.items():
            counts.parts[kind] = counts.parts.get(kind, 0) + tokens
        if self._packing.length is None:
            self._write_each(streams, block)
        else:
            self._fill(self._after_known(streams))
        counts.tokens += len(block.tokens)

    def checkpoint(self) -> Counts:
        """Where another run can go on, once the samples that were handed over are durable.

        Its documents are those before the block in which the next sample begins, its samples all
        that were handed over.
        """
        counts, length = self.counts, self._packing.length
        if length is None:
            return counts.copy(counts.samples)
        written = counts.samples * length
        while len(self._starts) > 1 and self._starts[1].tokens <= written:
            self._starts.popleft()
        before = self._starts[0] if self._starts else counts
        return before.copy(counts.samples)

    def _after_known(self, streams: dict[str, Array]) -> dict[str, Array]:
        """What is in no sample yet; what is, is compared as far as the last sample goes."""
        if not self._known:
            return streams
        known = min(self._known, len(streams["tokens"]))
        self._known -= known
        if not self._known and self._last is not None:
            shared = min(known, len(self._last))
            again = streams["tokens"][known - shared : known]
            if not np.array_equal(self._last[len(self._last) - shared :], again):
                raise FormatError(
                    "the last tokens that an earlier run has written are not what this one has "
                    "there: the source or the tokenizer is another now. Say overwrite to begin anew"
                )
        return {name: stream[known:] for name, stream in streams.items()}

    def _streams(self, block: Encoded) -> dict[str, Array]:
        """All arrays, as long as the tokens are."""
        tokens, lengths = block.tokens, block.lengths
        streams: dict[str, Array] = {"tokens": tokens}
        if block.mask is not None:
            streams["loss_mask"] = block.mask
        if "document" in self._dtypes:
            numbers = np.arange(block.first, block.first + len(lengths))
            streams["document"] = np.repeat(numbers.astype(self._dtypes["document"]), lengths)
        if "position" in self._dtypes or "local_position" in self._dtypes:
            self._positions(streams, block)
        return streams

    def _positions(self, streams: dict[str, Array], block: Encoded) -> None:
        lengths = block.lengths
        if len(lengths) and int(lengths.max()) > np.iinfo(np.int32).max:
            row = block.first + int(np.argmax(lengths))
            raise FormatError(
                f"document {row} has {lengths.max():,} tokens: too many for positions"
            )
        total = len(block.tokens)
        starts = np.cumsum(lengths) - lengths
        if "position" in self._dtypes:
            streams["position"] = _since(starts, total)
        if "local_position" in self._dtypes:
            if self._packing.length is not None:
                length = self._packing.length
                # Samples begin wherever so many tokens went before.
                phase = -self.counts.tokens % length
                starts = np.union1d(starts, np.arange(phase, total, length))
            streams["local_position"] = _since(starts, total)

    def _fill(self, streams: Mapping[str, Array]) -> None:
        total = len(streams["tokens"])
        room = len(self._buffers["tokens"])
        at = 0
        while at < total:
            take = min(total - at, room - self._filled)
            for name, buffer in self._buffers.items():
                buffer[self._filled : self._filled + take] = streams[name][at : at + take]
            at += take
            self._filled += take
            if self._filled == room:
                self._write_full()

    def _write_full(self) -> int:
        """Hand over the samples that are full; gives how many tokens follow them."""
        length = self._packing.length
        assert length is not None
        rows, rest = divmod(self._filled, length)
        if rows:
            full = rows * length
            shape = (rows, length)
            self._sink.write(
                {name: list(buffer[:full].reshape(shape)) for name, buffer in self._buffers.items()}
            )
            self.counts.samples += rows
            for buffer in self._buffers.values():
                buffer[:rest] = buffer[full : full + rest].copy()
            self._filled = rest
        return rest

    def _write_each(self, streams: Mapping[str, Array], block: Encoded) -> None:
        """One sample a document."""
        stops = np.cumsum(block.lengths).tolist()
        bounds = list(zip([0, *stops[:-1]], stops, strict=True))
        for place in reversed(block.skipped):
            del bounds[place]
        self._sink.write(
            {name: [stream[a:b] for a, b in bounds] for name, stream in streams.items()}
        )
        self.counts.samples += len(bounds)

    def finish(self) -> Counts:
        """Hand over what is left, as the packing says; gives the counts."""
        counts, length = self.counts, self._packing.length
        if counts.skipped and counts.skipped == counts.documents:
            raise FormatError(f"not one of {counts.documents} could be: {counts.faults[0]}")
        if self._known:
            raise FormatError(
                f"an earlier run has written {self._known} tokens more than there are now: the "
                "source or the tokenizer is another. Say overwrite to begin anew"
            )
        if length is None:
            return counts
        rest = self._write_full()
        if rest and self._packing.remainder == "drop":
            counts.dropped = rest
        elif rest and self._packing.remainder == "keep":
            self._sink.write({name: [buffer[:rest]] for name, buffer in self._buffers.items()})
            counts.samples += 1
        elif rest:
            counts.padding = length - rest
            for name, buffer in self._buffers.items():
                buffer[rest:length] = _PADDING.get(name, self._packing.pad)
            self._filled = length
            self._write_full()
        short = length - rest if rest and self._packing.remainder == "keep" else 0
        stored = counts.samples * length - short
        if stored != counts.tokens - counts.dropped + counts.padding:
            raise AssertionError(f"{stored} tokens in samples do not follow from {counts}")
        return counts


def _since(starts: Array, total: int) -> Array:
    """How far each of `total` places is from the last start at or before it."""
    # A block may have more tokens than 32 bits count; a document has not.
    dtype = np.int32 if total <= np.iinfo(np.int32).max else np.int64
    since: Array = np.arange(total, dtype=dtype)
    since -= np.repeat(starts.astype(dtype), np.diff(starts, append=total))
    return since.astype(np.int32, copy=False)
