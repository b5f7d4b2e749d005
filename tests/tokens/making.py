"""What the tests of tokens share: a sink in memory, and the stream as plain Python sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.tokens.job import TokenizeOptions, packing_of, prepare
from splitpipe.tokens.packer import Counts

Array = npt.NDArray[Any]
Part = tuple[str, str]
Document = str | list[Part]

VOCABULARY = 0x110000


@dataclass
class MemorySink:
    """Keeps samples, as the real one copies them."""

    samples: list[dict[str, Array]] = field(default_factory=list)

    def write(self, samples: Mapping[str, Sequence[Array]]) -> None:
        for row in zip(*samples.values(), strict=True):
            copies = (np.array(array) for array in row)
            self.samples.append(dict(zip(samples, copies, strict=True)))

    def joined(self, name: str) -> list[int]:
        """One array of all samples, end to end."""
        return [value for sample in self.samples for value in sample[name].tolist()]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, MemorySink)
        return len(self.samples) == len(other.samples) and all(
            mine.keys() == theirs.keys()
            and all(mine[name].dtype == theirs[name].dtype for name in mine)
            and all(np.array_equal(mine[name], theirs[name]) for name in mine)
            for mine, theirs in zip(self.samples, other.samples, strict=True)
        )


def pack(
    source: Any,
    tokenizer: Any,
    *,
    length: int | None,
    eos: int | None = None,
    text: Any = None,
    workers: int = 0,
    **options: Any,
) -> tuple[MemorySink, Counts]:
    """Tokenize into memory."""
    given = TokenizeOptions(**options)  # type: ignore[typeddict-item]
    packed = packing_of(tokenizer, length=length, eos=eos, options=given)
    job = prepare(source, *packed, text=text, workers=workers, block=given.get("block"))
    sink = MemorySink()
    return sink, job.run(sink)


def code_points(text: str) -> list[int]:
    """A tokenizer that can be checked by looking: the characters' numbers."""
    return [ord(character) for character in text]


@dataclass
class Stream:
    """All tokens of all documents, token by token."""

    tokens: list[int] = field(default_factory=list)
    loss_mask: list[int] = field(default_factory=list)
    document: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    bounds: list[int] = field(default_factory=lambda: [0])

    def put(self, token: int, counts: bool, document: int) -> None:
        self.position.append(len(self.tokens) - self.bounds[-1])
        self.tokens.append(token)
        self.loss_mask.append(int(counts))
        self.document.append(document)


def expected(
    documents: Sequence[Document],
    *,
    eos: int | None,
    bos: int | None,
    counting: frozenset[str],
    encode: Callable[[str], list[int]] = code_points,
) -> Stream:
    """The stream, made one token at a time."""
    stream = Stream()
    for number, document in enumerate(documents):
        parts = [("text", document)] if isinstance(document, str) else document
        if bos is not None:
            stream.put(bos, False, number)
        for kind, text in parts:
            for token in encode(text):
                stream.put(token, kind in counting, number)
        if eos is not None:
            stream.put(eos, bool(parts) and parts[-1][0] in counting, number)
        stream.bounds.append(len(stream.tokens))
    return stream
