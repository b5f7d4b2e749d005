"""What cannot be is refused before anything is written; what is wrong with a record names it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.errors import FormatError, GraphError, StorageError
from splitpipe.schema import Schema
from splitpipe.storage.base import MemoryRecords
from splitpipe.tokens import tokenize
from tests.tokens.making import code_points, pack


class Untouched(Sequence[str]):
    """Texts that nobody may read."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("a record was read")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "uint16", "vocabulary": 100_000}, r"uint16 holds ids up to 65,535.*uint32"),
        (
            {"dtype": "int16", "vocabulary": 40_000},
            r"int16 holds ids up to 32,767.*use dtype='uint16'",
        ),
        ({"dtype": "uint8", "eos": 256}, r"uint8 holds ids up to 255.*eos=256.*use dtype='uint32'"),
        ({"dtype": "float32"}, "an integer type of numpy, not float32"),
        ({"dtype": "tokens"}, "an integer type of numpy, not 'tokens'"),
        ({"vocabulary": 300, "eos": 300}, r"eos=300 is not in the vocabulary of 300 ids"),
        ({"vocabulary": 300, "bos": 301}, r"bos=301 is not in the vocabulary"),
        ({"vocabulary": 2**32 + 1}, "ids have 32 bits"),
        ({"vocabulary": 0}, "vocabulary must be a whole number of at least 1"),
        ({"eos": -1}, "eos must be a whole number of at least 0"),
        ({"length": 0}, "length must be a whole number of at least 1"),
        ({"length": 2.5}, "length must be a whole number"),
        ({"length": True}, "length must be a whole number"),
        ({"remainder": "throw"}, "drop, keep, pad"),
        ({"remainder": "keep", "length": None}, "needs a length"),
        ({"remainder": "pad", "eos": None}, "give pad= or eos="),
        ({"pad": 3}, "remainder='pad' only"),
        ({"arrays": ["segment"]}, "document, position, local_position"),
        ({"arrays": "document"}, "not 'document'"),
        ({"loss": []}, "no part would count"),
        ({"loss": {"user": False}}, "no part would count"),
        ({"loss": [1]}, "names of part types"),
        ({"block": 0}, "block must be a whole number"),
        ({"workers": -1}, "workers must be a whole number"),
    ],
    ids=repr,
)
def test_what_cannot_be_is_refused_before_anything_is_read_or_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    given = {"length": 8, "eos": 0, **options}
    with pytest.raises(FormatError, match=message):
        tokenize(Untouched(), tmp_path / "out", code_points, **given)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no option 'lenght'"):
        tokenize(["a"], tmp_path / "out", code_points, length=1, eos=None, lenght=3)  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("records", "message"),
    [
        (["a", "b", 7, "d"], "record 2 of a list of 4 cannot be tokenized: a int is not text"),
        (["a", None], "record 1 of a list of 2 .* its text is missing"),
        (["a", b"\xff"], "record 1 .*not UTF-8: invalid start byte at byte 0"),
        ([{"text": "a"}, {"body": "b"}], "record 1 .*it has no 'text'; it has 'body'"),
        (["a", [("user", "b"), ("c",)]], r"record 1 .*\('c',\) is no part"),
        (["a", [{"role": "user"}]], "record 1 .*is no part"),
        (["a", ["b"]], "record 1 .*'b' is no part"),
    ],
    ids=["int", "none", "bytes", "member", "short part", "no text", "str"],
)
def test_a_record_without_text_is_named(records: list[Any], message: str, workers: int) -> None:
    with pytest.raises(FormatError, match=message):
        pack(records, code_points, length=1, workers=workers, block=3)


def test_ids_that_do_not_fit_name_the_record() -> None:
    texts = ["abc", "", "ab", "a\u0101b"]
    with pytest.raises(FormatError, match=r"record 3 .*token id 257 is out of the range of uint8"):
        pack(texts, code_points, length=2, dtype="uint8", block=2)
    with pytest.raises(FormatError, match=r"record 3 .*a vocabulary of 256"):
        pack(texts, code_points, length=2, vocabulary=256)
    parts = [[("user", "a"), ("user", "b")], [("user", "c"), ("user", "\u0101")]]
    with pytest.raises(FormatError, match=r"record 1 .*token id 257"):
        pack(parts, code_points, length=2, vocabulary=256)


def test_what_is_no_id_names_the_record() -> None:
    def encode(text: str) -> Any:
        return [-1] if text == "bad" else [1, 2]

    with pytest.raises(FormatError, match=r"record 5 .*cannot be tokenized: -1 is not a token id"):
        pack(["good"] * 5 + ["bad"], encode, length=2, block=3)
    parts: list[Any] = ["good", [("user", "good"), ("user", "bad")]]
    with pytest.raises(FormatError, match=r"record 1 .*-1 is not a token id"):
        pack(parts, encode, length=2)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batched", [False, True])
def test_the_tokenizers_own_exception_comes_with_the_record(workers: int, batched: bool) -> None:
    class Unhappy(Exception):
        pass

    def encode(text: str) -> list[int]:
        if text == "bad":
            raise LookupError("I do not like it")
        return [1]

    def encode_all(texts: list[str]) -> list[list[int]]:
        return [encode(text) for text in texts]

    with pytest.raises(LookupError, match="I do not like it") as caught:
        pack(
            ["good"] * 7 + ["bad", "good"],
            encode_all if batched else encode,
            length=2,
            workers=workers,
            block=4,
            batched=batched,
        )
    notes = "\n".join(caught.value.__notes__)
    assert "while tokenizing record 7 of a list of 9" in notes


def test_a_tokenizer_that_fails_only_once_is_told_by_its_block() -> None:
    failures = [LookupError("busy")]

    def encode(texts: list[str]) -> list[list[int]]:
        if failures:
            raise failures.pop()
        return [[1] for _ in texts]

    with pytest.raises(LookupError) as caught:
        pack(["a"] * 9, encode, length=2, block=4, batched=True)
    assert "while tokenizing records 0 to 3 of a list of 9" in caught.value.__notes__[0]


def test_the_function_for_texts_is_named_with_the_record() -> None:
    def text(record: dict[str, str]) -> str:
        return record["body"]

    with pytest.raises(KeyError) as caught:
        pack([{"body": "a"}, {}], code_points, length=1, text=text)
    notes = "\n".join(caught.value.__notes__)
    assert "in text=" in notes
    assert "record 1 of a list of 2" in notes


def test_part_types_of_which_nobody_spoke() -> None:
    records: list[Any] = ["plain", [("user", "a"), ("tool", "b")]]
    loss = {"text": True, "user": False}
    with pytest.raises(FormatError, match=r"record 1 .*part type 'tool' is not named in loss="):
        pack(records, code_points, length=1, loss=loss)
    _, counts = pack(records, code_points, length=1, loss=["text"])
    assert counts.parts == {"text": 5, "user": 1, "tool": 1}
    with pytest.raises(FormatError, match=r"record 0 .*part type 'text' is not named"):
        pack(["plain"], code_points, length=1, loss={"user": True})


def test_columns_that_are_no_text() -> None:
    schema = Schema({"n": "int64", "title": "str", "body": "str"})
    values = {"n": [1], "title": ["t"], "body": ["b"]}
    records = MemoryRecords(schema, values)
    with pytest.raises(
        FormatError, match=r"there is no column 'text'; say text=, a column \('title', 'body'\)"
    ):
        pack(records, code_points, length=1)
    with pytest.raises(FormatError, match="column 'n' is no text"):
        pack(records, code_points, length=1, text="n")
    sink, _ = pack(records, code_points, length=1, text="body")
    assert sink.joined("tokens") == [ord("b")]


def test_sources_that_are_none() -> None:
    with pytest.raises(FormatError, match="a bytes is no sequence of texts"):
        pack(b"text", code_points, length=1)
    with pytest.raises(FormatError, match="a dict is no sequence of texts"):
        pack({"a": "b"}, code_points, length=1)
    with pytest.raises(GraphError, match="can be read only once"):
        pack(iter(["a"]), code_points, length=1)
    with pytest.raises(GraphError, match="is not a source"):
        pack(3, code_points, length=1)


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "there"
    with sp.DatasetWriter(path) as writer:
        writer.write(b"mine")
    with pytest.raises(StorageError):
        tokenize(["a"], path, code_points, length=1, eos=None)
    assert list(sp.open_dataset(path)) == [b"mine"]
    with pytest.raises(FormatError, match="does not tell what"):
        tokenize(["a"], path, code_points, length=1, eos=None, append=True)
    assert list(sp.open_dataset(path)) == [b"mine"]


def test_a_document_longer_than_positions_can_tell() -> None:
    from splitpipe.tokens.blocks import Encoded
    from splitpipe.tokens.packer import Packer
    from splitpipe.tokens.packing import Packing
    from tests.tokens.making import MemorySink

    packing = Packing(4, arrays=("position",))
    packer = Packer(packing, MemorySink(), packing.dtypes())
    # A view of one element as long as that: nobody has the memory.
    tokens = np.broadcast_to(np.uint32(1), 2**31)
    with pytest.raises(FormatError, match="document 0 has 2,147,483,648 tokens"):
        packer.add(Encoded(0, tokens, np.array([2**31]), None, {}))
