"""Tokens on disk: from every kind of source, committed at once, readable without being told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.dataset import dataset_of
from splitpipe.errors import FormatError, LockedError
from splitpipe.schema import Schema, ndarray
from splitpipe.storage.base import MemoryRecords
from splitpipe.tokens import output, token_info, tokenize
from tests.tokens.making import code_points, expected

TEXTS = [f"text {n} " * (n % 5) for n in range(40)]
STREAM = expected(TEXTS, eos=0, bos=None, counting=frozenset()).tokens


def stored(path: Path) -> list[int]:
    with sp.open_dataset(path) as dataset:
        return [id for sample in dataset for id in sample["tokens"].tolist()]


def lines(folder: Path) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS))
    return path


def written(folder: Path, records: list[Any], **options: Any) -> Path:
    path = folder / "source"
    with sp.DatasetWriter(path, bins=3, **options) as writer:
        writer.write_many(records)
    return path


SOURCES: dict[str, Callable[[Path], Any]] = {
    "list of str": lambda folder: TEXTS,
    "list of dicts": lambda folder: [{"text": text} for text in TEXTS],
    "tuple of bytes": lambda folder: tuple(text.encode() for text in TEXTS),
    "function": lambda folder: lambda: iter(TEXTS),
    "pipeline": lambda folder: sp.Pipeline(TEXTS).map(str.encode),
    "records": lambda folder: MemoryRecords(
        Schema({"text": "str", "n": "int64"}), {"text": TEXTS, "n": [1] * len(TEXTS)}
    ),
    "one column": lambda folder: dataset_of(
        MemoryRecords(Schema({"body": "str"}), {"body": TEXTS})
    ),
    "path of bytes": lambda folder: written(folder, [text.encode() for text in TEXTS]),
    "path of str": lambda folder: written(folder, TEXTS),
    "path of columns": lambda folder: written(folder, [{"n": 1, "text": t} for t in TEXTS]),
    "path of json": lambda folder: written(
        folder, [{"text": text} for text in TEXTS], schema=Schema("json")
    ),
    "dataset": lambda folder: sp.open_dataset(written(folder, TEXTS)),
    "view": lambda folder: sp.open_dataset(written(folder, ["x", *TEXTS])).subset(
        range(1, len(TEXTS) + 1)
    ),
    "jsonl": lines,
    "name of jsonl": lambda folder: str(lines(folder)),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source(tmp_path: Path, kind: str) -> None:
    source = SOURCES[kind](tmp_path)
    path = tmp_path / "tokens"
    report = tokenize(source, path, code_points, length=8, eos=0, remainder="keep", block=7)
    assert stored(path) == STREAM
    assert report.documents == len(TEXTS)
    assert report.samples == len(sp.open_dataset(path))
    close = getattr(source, "close", None)
    if close is not None:
        close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_is_read_in_the_workers(tmp_path: Path, workers: int) -> None:
    source = written(tmp_path, [{"body": t, "n": 1} for t in TEXTS])
    path = tmp_path / "tokens"
    options: Any = {"workers": workers, "block": 3, "remainder": "keep"}
    tokenize(source, path, code_points, length=8, eos=0, text="body", **options)
    assert stored(path) == STREAM


def test_the_reader_need_not_be_told_anything(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    report = tokenize(
        [[("user", "ab"), ("assistant", "cde")], [("assistant", "f")]],
        path,
        code_points,
        length=3,
        eos=0,
        vocabulary=256,
        loss="assistant",
        arrays=("position", "document"),
        bins=2,
    )
    assert (report.samples, report.dropped, report.dtype) == (2, 2, "uint16")
    with sp.open_dataset(path) as dataset:
        names = {"tokens": "uint16", "loss_mask": "uint8", "document": "int32", "position": "int32"}
        assert dataset.schema == Schema({n: ndarray(dtype, (3,)) for n, dtype in names.items()})
        batch = dataset.get_batch([1, 0])
    want = {
        "tokens": [[100, 101, 0], [97, 98, 99]],
        "loss_mask": [[1, 1, 1], [0, 0, 1]],
        "document": [[0, 0, 0], [0, 0, 0]],
        "position": [[3, 4, 5], [0, 1, 2]],
    }
    assert {name: array.tolist() for name, array in batch.items()} == want
    assert {name: array.dtype.name for name, array in batch.items()} == names


def test_what_a_dataset_of_tokens_is_made_of_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    report = tokenize(TEXTS, path, code_points, length=8, eos=0, vocabulary=300, dtype="int64")
    (run,) = token_info(path)
    assert run["tokenizer"] == {
        "name": "tests.tokens.making.code_points",
        "sha256": None,
        "vocabulary": 300,
    }
    assert run["packing"]["length"] == 8
    assert run["packing"]["eos"] == 0
    assert run["packing"]["dtype"] == "int64"
    assert run["source"] == "a list of 40"
    assert run["report"] == {k: v for k, v in report.to_json().items() if k != "path"}
    # Another dataset in the same place is not what this is about.
    with sp.DatasetWriter(path, overwrite=True) as writer:
        writer.write(b"other")
    with pytest.raises(FormatError, match="a dataset that was there before"):
        token_info(path)
    with pytest.raises(FormatError, match="is not a splitpipe dataset"):
        token_info(tmp_path)


def test_appending_goes_on_with_the_same_and_refuses_another(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    options: Any = {"eos": 0, "vocabulary": 300, "remainder": "pad"}
    first = tokenize(TEXTS[:20], path, code_points, length=8, append=True, **options)
    second = tokenize(TEXTS[20:], path, code_points, length=8, append=True, **options)
    assert [run["report"]["samples"] for run in token_info(path)] == [first.samples, second.samples]
    with sp.open_dataset(path) as dataset:
        assert len(dataset) == first.samples + second.samples
    before = stored(path)
    with pytest.raises(FormatError, match="samples of another packing"):
        tokenize(TEXTS, path, code_points, length=9, append=True, **options)
    with pytest.raises(FormatError, match="samples of another tokenizer"):
        tokenize(TEXTS, path, str.encode, length=8, append=True, **options)
    assert stored(path) == before
    report = tokenize(TEXTS[:1], path, str.encode, length=2, eos=0, overwrite=True)
    assert stored(path) == STREAM[: 2 * report.samples]
    assert len(token_info(path)) == 1


def test_two_do_not_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    options: Any = {"length": 8, "eos": 0, "append": True}
    tokenize(TEXTS, path, code_points, **options)
    told: list[str] = []

    def progress(done: int, total: int | None) -> None:
        with pytest.raises(LockedError):
            tokenize(TEXTS, path, code_points, **options)
        told.append(f"{done} of {total}")

    tokenize(TEXTS, path, code_points, progress=progress, **options)
    assert told == ["40 of 40"]
    assert len(token_info(path)) == 2


def test_one_who_appended_meanwhile_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokens"
    options: Any = {"eos": 0, "append": True}
    opened = output.DatasetWriter

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        tokenize(TEXTS, path, code_points, length=8, vocabulary=300, dtype="uint32", **options)
        return opened(*args, **kwargs)

    monkeypatch.setattr(output, "DatasetWriter", overtaken)
    with pytest.raises(FormatError, match="samples of another tokenizer"):
        tokenize(TEXTS, path, code_points, length=8, **options)
    # The one who was refused holds no lock.
    tokenize(TEXTS, path, code_points, length=8, vocabulary=300, dtype="uint32", **options)
    assert len(token_info(path)) == 2


def test_nothing_but_a_remainder_may_be_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    options: Any = {"length": 8, "eos": 0, "append": True}
    assert tokenize(["abc"], path, code_points, **options).dropped == 4
    assert tokenize(["abcdefg"], path, code_points, **options).samples == 1
    assert [run["report"]["samples"] for run in token_info(path)] == [0, 1]


def test_samples_may_be_compressed(tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    path = tmp_path / "tokens"
    options: Any = {"arrays": ["document"], "compression": {"document": "zstd"}}
    tokenize(TEXTS, path, code_points, length=64, eos=0, **options)
    with sp.open_dataset(path) as dataset:
        assert dataset.schema["document"].compression == "zstd"
        assert dataset.schema["tokens"].compression is None
        assert dataset.get_batch([0], columns=["document"])["document"].shape == (1, 64)


def test_one_sample_a_document_stays_beside_its_record(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    report = tokenize(TEXTS, path, code_points, length=None, eos=None)
    assert report.samples == report.documents == len(TEXTS)
    with sp.open_dataset(path) as dataset:
        for text, sample in zip(TEXTS, dataset, strict=True):
            assert sample["tokens"].tolist() == code_points(text)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failed_run_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def encode(text: str) -> list[int]:
        if text.startswith("text 37"):
            raise LookupError("no more")
        return code_points(text)

    path = tmp_path / "tokens"
    with pytest.raises(LookupError):
        tokenize(TEXTS, path, encode, length=4, eos=0, workers=workers, block=2)
    assert not path.exists() or not any(path.iterdir())
    report = tokenize(TEXTS, path, code_points, length=4, eos=0)
    with pytest.raises(LookupError):
        tokenize(TEXTS, path, encode, length=4, eos=0, overwrite=True, workers=workers)
    assert stored(path) == STREAM[: 4 * report.samples]
    assert len(token_info(path)) == 1


KILLED = """
import os, signal, sys
from splitpipe.tokens import tokenize

def progress(done, total):
    if done >= 20_000:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    texts = ["a text of some length " * 20] * 40_000
    tokenize(texts, sys.argv[1], str.encode, length=64, eos=0, workers=1, progress=progress)
"""


@pytest.mark.parametrize("again", [False, True])
def test_a_killed_run_leaves_nothing_that_counts(tmp_path: Path, again: bool) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    path = tmp_path / "tokens"
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, str(script), str(path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, check=False)
    assert done.returncode == -signal.SIGKILL
    # It had written already, and none of it counts.
    assert any(file.stat().st_size > 1 << 16 for file in path.iterdir())
    with sp.open_dataset(path) as dataset:
        assert len(dataset) == 0
    with pytest.raises(FormatError, match="does not tell what"):
        token_info(path)
    # It can be run again, also as something else, as if it had never been.
    report = tokenize(TEXTS, path, code_points, length=4, eos=0, append=again)
    assert stored(path) == STREAM[: 4 * report.samples]


def test_training_reads_them_shuffled_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    report = tokenize(TEXTS, path, code_points, length=4, eos=0, vocabulary=256, bins=4)
    with sp.open_dataset(path) as dataset:
        pipe = sp.Pipeline(dataset, shuffle="binwise", seed=1).batch(8)
        rows = [row for batch in pipe for row in batch["tokens"]]
    assert len(rows) == report.samples
    packed = np.array(STREAM[: 4 * report.samples], np.uint16).reshape(-1, 4)
    assert sorted(row.tolist() for row in rows) == sorted(packed.tolist())
