"""What cannot be tokenized is left out when that was said, counted and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.errors import FormatError, StorageError
from splitpipe.testing.faults import Damaged
from splitpipe.tokens import token_info, tokenize
from tests.tokens.making import code_points

GOOD = [f"text {n} " * (n % 4) for n in range(40)]
BAD: dict[int, Any] = {0: None, 3: 7, 4: b"\xff", 20: ["b"], 39: [("user", "b"), ("c",)]}
MIXED: list[Any] = [BAD.get(n, text) for n, text in enumerate(GOOD)]
LEFT = [text for n, text in enumerate(GOOD) if n not in BAD]


def stored(path: Path, name: str = "tokens") -> list[list[int]]:
    with sp.open_dataset(path) as dataset:
        return [sample[name].tolist() for sample in dataset]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("block", [1, 3, 256])
@pytest.mark.parametrize("eos", [None, 0])
@pytest.mark.parametrize("length", [8, None])
def test_the_others_are_as_without_them(
    tmp_path: Path, workers: int, block: int, eos: int | None, length: int | None
) -> None:
    options: Any = {"length": length, "eos": eos, "arrays": ["position", "local_position"]}
    how: Any = {"on_error": "skip", "workers": workers if block == 3 else 0, "block": block}
    report = tokenize(MIXED, tmp_path / "mixed", code_points, **options, **how)
    clean = tokenize(LEFT, tmp_path / "clean", code_points, **options)
    for name in ("tokens", "position", "local_position"):
        assert stored(tmp_path / "mixed", name) == stored(tmp_path / "clean", name)
    assert (report.skipped, report.documents) == (len(BAD), len(LEFT))
    same = ("documents", "empty", "tokens", "samples", "dropped", "parts")
    for name in same:
        assert getattr(report, name) == getattr(clean, name), name
    assert [fault.split(" of ")[0] for fault in report.faults] == [f"record {n}" for n in BAD]
    assert token_info(tmp_path / "mixed")[0]["report"]["skipped"] == len(BAD)


def test_documents_keep_their_numbers(tmp_path: Path) -> None:
    options: Any = {"length": 4, "eos": 0, "arrays": ["document"], "on_error": "skip", "block": 2}
    tokenize(["ab", None, "c", 3, "de"], tmp_path / "x", code_points, **options)
    assert stored(tmp_path / "x", "document") == [[0, 0, 0, 2], [2, 4, 4, 4]]


def test_parts_and_masks(tmp_path: Path) -> None:
    records: list[Any] = [
        [("user", "a"), ("tool", "b")],
        [("user", "c"), ("assistant", "d")],
        [("user", 3)],
    ]
    loss = {"assistant": True, "user": False}
    options: Any = {"length": 3, "eos": 0, "loss": loss, "on_error": "skip"}
    report = tokenize(records, tmp_path / "x", code_points, **options)
    assert stored(tmp_path / "x", "loss_mask") == [[0, 1, 1]]
    assert report.parts == {"user": 1, "assistant": 1}
    assert "part type 'tool' is not named" in report.faults[0]


class Unhappy(Exception):
    pass


@pytest.mark.parametrize("batched", [False, True])
def test_exceptions_of_the_tokenizer_and_of_the_function_for_texts(
    tmp_path: Path, batched: bool
) -> None:
    def encode(text: str) -> list[int]:
        if text == "bad":
            raise Unhappy("no")
        return [-1] if text == "negative" else code_points(text)

    def encode_all(texts: list[str]) -> list[list[int]]:
        return [encode(text) for text in texts]

    def text(record: dict[str, str]) -> str:
        return record["body"]

    records = [{"body": "ab"}, {"body": "bad"}, {}, {"body": "negative"}, {"body": "cd"}]
    report = tokenize(
        records,
        tmp_path / "x",
        encode_all if batched else encode,
        batched=batched,
        text=text,
        length=2,
        eos=None,
        on_error="skip",
    )
    assert stored(tmp_path / "x") == [code_points("ab"), code_points("cd")]
    bad, missing, negative = report.faults
    assert bad == "record 1 of a list of 5 cannot be tokenized: Unhappy: no"
    assert missing == "record 2 of a list of 5 cannot be tokenized: KeyError: 'body'"
    assert "-1 is not a token id" in negative


def test_a_damaged_record_of_the_source(tmp_path: Path) -> None:
    with sp.DatasetWriter(tmp_path / "source", "str", bins=1) as writer:
        writer.write_many(LEFT)
    options: Any = {"length": 8, "eos": 0, "block": 4}
    with Damaged(tmp_path / "source" / "v0001-c000-b00000.bin") as file:
        file.flip(8 * (file.nbytes - 3))
        with pytest.raises(FormatError):
            tokenize(tmp_path / "source", tmp_path / "x", code_points, **options)
        how: Any = {**options, "on_error": "skip"}
        report = tokenize(tmp_path / "source", tmp_path / "x", code_points, **how)
    assert (report.skipped, report.documents) == (1, len(LEFT) - 1)
    tokenize(LEFT[:-1], tmp_path / "clean", code_points, **options)
    assert stored(tmp_path / "x") == stored(tmp_path / "clean")


@pytest.mark.parametrize("error", [OSError("the disk"), MemoryError()])
def test_what_is_no_fault_of_the_record_is_raised(tmp_path: Path, error: Exception) -> None:
    def encode(text: str) -> list[int]:
        raise error

    with pytest.raises(type(error)):
        tokenize(["a"], tmp_path / "x", encode, length=1, eos=0, on_error="skip")


def test_all_of_them_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"not one of 3 .*a int is not text"):
        tokenize([1, 2, 3], tmp_path / "x", code_points, length=1, eos=0, on_error="skip")
    assert not (tmp_path / "x").exists()
    with pytest.raises(FormatError, match="on_error must be one of raise, skip"):
        tokenize(["a"], tmp_path / "x", code_points, length=1, eos=0, on_error="ignore")


def test_only_the_first_ones_are_told(tmp_path: Path) -> None:
    records: list[Any] = [None] * 500 + ["abc"]
    options: Any = {"length": 3, "eos": None, "on_error": "skip", "block": 7}
    report = tokenize(records, tmp_path / "x", code_points, **options)
    assert (report.skipped, len(report.faults)) == (500, 10)
    assert stored(tmp_path / "x") == [code_points("abc")]


def test_going_on_with_skipping_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from splitpipe.tokens import output, packer

    monkeypatch.setattr(output, "COMMIT_NBYTES", 1)
    monkeypatch.setattr(packer, "_BUFFER_NBYTES", 64)
    records: list[Any] = [*LEFT, None, *LEFT]
    options: Any = {"length": 8, "eos": 0, "block": 3}
    with pytest.raises(FormatError, match="its text is missing"):
        tokenize(records, tmp_path / "x", code_points, **options)
    with sp.open_dataset(tmp_path / "x") as begun:
        assert len(begun) > 10
    report = tokenize(records, tmp_path / "x", code_points, on_error="skip", **options)
    assert report.resumed_at > 20
    assert report.skipped == 1
    tokenize([*LEFT, *LEFT], tmp_path / "clean", code_points, **options)
    assert stored(tmp_path / "x") == stored(tmp_path / "clean")


def test_no_stored_array_is_longer_for_it(tmp_path: Path) -> None:
    """A block of which all were skipped has arrays of the right types, without elements."""
    options: Any = {"length": None, "eos": None, "on_error": "skip", "block": 2, "loss": "text"}
    tokenize([None, None, "a"], tmp_path / "x", code_points, dtype="uint16", **options)
    with sp.open_dataset(tmp_path / "x") as dataset:
        (sample,) = dataset
    assert {name: array.dtype.name for name, array in sample.items()} == {
        "tokens": "uint16",
        "loss_mask": "uint8",
    }
    assert np.array_equal(sample["tokens"], [97])


def test_a_failing_disk_is_no_fault_of_a_record(tmp_path: Path) -> None:
    class Source(list[str]):
        def __getitem__(self, index: Any) -> Any:
            raise StorageError(5, "cannot read", "somewhere")

    with pytest.raises(StorageError):
        tokenize(Source(["a"]), tmp_path / "x", code_points, length=1, eos=0, on_error="skip")
