"""Every token of every document is in its place, whatever is packed, and by however many."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.tokens import packer
from splitpipe.tokens.job import packing_of, prepare
from splitpipe.tokens.packing import Packing
from tests.tokens.making import (
    VOCABULARY,
    Document,
    MemorySink,
    code_points,
    expected,
    pack,
)

ARRAYS = ("document", "position", "local_position")
EOS, BOS, PAD = 0x10FFFF, 0x10FFFE, 0x10FFFD

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
PARTS = st.lists(st.tuples(st.sampled_from(["user", "assistant", "text"]), TEXTS), max_size=4)
LONG = st.integers(0, 200).map(lambda n: "".join(chr(97 + k % 26) for k in range(n)))
DOCUMENTS: st.SearchStrategy[list[Document]] = st.lists(TEXTS | PARTS | LONG, max_size=12)


class Encoding:
    """What some tokenizers return: an object with ids."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids


FORMS: dict[str, Callable[[str], Any]] = {
    "list": code_points,
    "tuple": lambda text: tuple(code_points(text)),
    "array": lambda text: array("l", code_points(text)),
    "int64": lambda text: np.array(code_points(text), np.int64),
    "uint32": lambda text: np.array(code_points(text), np.uint32),
    "of numpy's": lambda text: list(np.array(code_points(text), np.int32)),
    "encoding": lambda text: Encoding(code_points(text)),
    "batch encoding": lambda text: {"input_ids": code_points(text)},
    "any": lambda text: (
        [code_points, tuple, np.array][len(text) % 3](code_points(text))
        if len(text) % 3
        else code_points(text)
    ),
    "generator": lambda text: (ord(character) for character in text),
}


@given(
    documents=DOCUMENTS,
    length=st.integers(1, 9),
    eos=st.sampled_from([None, EOS]),
    bos=st.sampled_from([None, BOS]),
    remainder=st.sampled_from(["drop", "keep", "pad"]),
    block=st.integers(1, 5),
    form=st.sampled_from(list(FORMS)),
    loss=st.sampled_from([None, "assistant", ("assistant", "text")]),
)
@settings(max_examples=150, deadline=None)
def test_samples_end_to_end_are_the_documents_end_to_end(
    documents: list[Document],
    length: int,
    eos: int | None,
    bos: int | None,
    remainder: str,
    block: int,
    form: str,
    loss: Any,
) -> None:
    options: dict[str, Any] = {"pad": PAD} if remainder == "pad" else {}
    sink, counts = pack(
        documents,
        FORMS[form],
        length=length,
        eos=eos,
        bos=bos,
        remainder=remainder,
        block=block,
        loss=loss,
        arrays=ARRAYS,
        vocabulary=VOCABULARY,
        **options,
    )
    counting = frozenset([loss] if isinstance(loss, str) else loss or ())
    stream = expected(documents, eos=eos, bos=bos, counting=counting)
    total = len(stream.tokens)
    rest = total % length

    assert counts.documents == len(documents)
    assert counts.tokens == total
    assert counts.dropped == (rest if remainder == "drop" else 0)
    assert counts.padding == (-total % length if remainder == "pad" else 0)
    assert counts.samples == len(sink.samples)
    lengths = [len(sample["tokens"]) for sample in sink.samples]
    assert all(found == length for found in lengths[:-1])
    assert sum(lengths) == total - counts.dropped + counts.padding

    kept = total - counts.dropped
    fill = counts.padding
    assert sink.joined("tokens") == stream.tokens[:kept] + [PAD] * fill
    assert sink.joined("document") == stream.document[:kept] + [-1] * fill
    assert sink.joined("position") == stream.position[:kept] + [0] * fill
    local = [min(at % length, place) for at, place in enumerate(stream.position[:kept])]
    assert sink.joined("local_position") == local + [0] * fill
    if loss is None:
        assert all("loss_mask" not in sample for sample in sink.samples)
    else:
        assert sink.joined("loss_mask") == stream.loss_mask[:kept] + [0] * fill

    own = sum(len(text) for document in documents for text in _texts(document))
    assert sum(counts.parts.values()) == own
    assert counts.empty == sum(not any(_texts(document)) for document in documents)


def _texts(document: Document) -> list[str]:
    return [document] if isinstance(document, str) else [text for _, text in document]


@given(documents=DOCUMENTS, eos=st.sampled_from([None, EOS]), block=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_without_a_length_every_document_is_a_sample(
    documents: list[Document], eos: int | None, block: int
) -> None:
    sink, counts = pack(
        documents,
        code_points,
        length=None,
        eos=eos,
        block=block,
        loss="assistant",
        arrays=ARRAYS,
        vocabulary=VOCABULARY,
    )
    stream = expected(documents, eos=eos, bos=None, counting=frozenset({"assistant"}))
    assert counts.samples == counts.documents == len(documents)
    for number, sample in enumerate(sink.samples):
        start, stop = stream.bounds[number : number + 2]
        assert sample["tokens"].tolist() == stream.tokens[start:stop]
        assert sample["loss_mask"].tolist() == stream.loss_mask[start:stop]
        assert sample["document"].tolist() == [number] * (stop - start)
        assert sample["position"].tolist() == list(range(stop - start))
        assert sample["local_position"].tolist() == list(range(stop - start))


def test_samples_leave_full_buffers_and_half_full_ones_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents: list[Document] = ["abcdefghij" * n for n in range(40)]
    want = expected(documents, eos=EOS, bos=None, counting=frozenset())
    for nbytes in (1, 64, 1000, 1 << 20):
        monkeypatch.setattr(packer, "_BUFFER_NBYTES", nbytes)
        sink, counts = pack(
            documents, code_points, length=7, eos=EOS, remainder="keep", vocabulary=VOCABULARY
        )
        assert sink.joined("tokens") == want.tokens
        assert counts.samples == -(-len(want.tokens) // 7)


def test_texts_beyond_what_a_tokenizer_gets_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> list[list[int]]:
        calls.append(texts)
        return [code_points(text) for text in texts]

    monkeypatch.setattr("splitpipe.tokens.blocks._MOST_CHARACTERS", 10)
    texts = ["abcd", "", "efgh", "x" * 30, "ij", "klmnopqr", "s", "", "t"]
    sink, _ = pack(texts, encode, length=1, batched=True)
    assert sink.joined("tokens") == code_points("".join(texts))
    assert calls == [["abcd", "", "efgh"], ["x" * 30], ["ij", "klmnopqr"], ["s", "", "t"]]


def same_source(kind: str, texts: list[str]) -> Any:
    if kind == "list":
        return texts
    if kind == "function":
        return lambda: iter(texts)
    return sp.Pipeline(texts).map(str.upper, workers=1).map(str.lower)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["list", "function", "pipeline"])
def test_the_same_for_any_number_of_workers(kind: str) -> None:
    texts = [f"document {n} " * (n % 17) for n in range(300)]
    options: dict[str, Any] = {"arrays": ARRAYS, "loss": "text", "remainder": "pad"}
    want: MemorySink | None = None
    for workers, block in ((0, 256), (0, 7), (1, 32), (2, 5), (3, 64)):
        sink, counts = pack(
            same_source(kind, texts),
            code_points,
            length=100,
            eos=0,
            workers=workers,
            block=block,
            **options,
        )
        want = want or sink
        assert sink == want, (workers, block)
        assert counts.documents == len(texts)
        assert len(sink.samples) > 20


def test_workers_tokenize_and_this_process_does_not() -> None:
    own = os.getpid()

    def encode(text: str) -> list[int]:
        return [int(os.getpid() == own)]

    here, _ = pack(["a"] * 40, encode, length=4, block=3)
    there, _ = pack(["a"] * 40, encode, length=4, block=3, workers=2)
    assert set(here.joined("tokens")) == {1}
    assert set(there.joined("tokens")) == {0}


def test_a_tokenizers_threads_are_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)

    def encode(text: str) -> list[int]:
        return [int(os.environ.get("TOKENIZERS_PARALLELISM") == "false")]

    for workers, want in ((0, 0), (1, 0), (2, 1)):
        sink, _ = pack(["a"] * 8, encode, length=1, block=2, workers=workers)
        assert set(sink.joined("tokens")) == {want}
        assert "TOKENIZERS_PARALLELISM" not in os.environ


@pytest.mark.parametrize(("kind", "text"), [("type", "text"), ("role", "content")])
def test_parts_as_they_are_called_elsewhere(kind: str, text: str) -> None:
    records = [{"messages": [{kind: "user", text: "ab"}, {kind: "assistant", text: b"c"}]}]
    sink, counts = pack(records, code_points, length=3, text="messages", loss="assistant")
    assert sink.joined("tokens") == code_points("abc")
    assert sink.joined("loss_mask") == [0, 0, 1]
    assert counts.parts == {"user": 2, "assistant": 1}


def test_numbers_of_documents_have_room() -> None:
    packing = Packing(4, arrays=("document",))
    assert packing.dtypes(2**31 - 1)["document"] == "int32"
    assert packing.dtypes(2**31)["document"] == "int64"
    sink, _ = pack(lambda: ["ab"], code_points, length=2, arrays=["document"])
    assert sink.samples[0]["document"].dtype == np.int64


def test_nothing_gives_nothing() -> None:
    for length in (None, 3):
        sink, counts = pack([], code_points, length=length, eos=0)
        assert sink.samples == []
        assert (counts.documents, counts.tokens, counts.samples) == (0, 0, 0)
    sink, counts = pack([], code_points, length=3, eos=0, remainder="pad")
    assert sink.samples == []


def test_progress_is_told() -> None:
    told: list[tuple[int, int | None]] = []
    packed = packing_of(code_points, length=2, eos=None, options={})
    job = prepare(["a"] * 5, *packed, block=2)
    job.run(MemorySink(), lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]
