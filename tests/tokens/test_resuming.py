"""Tokenizing that ended early goes on: killed or failed anywhere, with the very same samples.

At every call of the system, not only at every second or third:

    SPLITPIPE_SAFETY=long python -m pytest tests/tokens/test_resuming.py
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.errors import FormatError, StorageError
from splitpipe.storage import check_dataset
from splitpipe.testing.faults import Call, Strike, Tap, die, fail, run_in_child
from splitpipe.tokens import output, packer, token_info, tokenize
from tests.tokens.making import code_points

LONG = os.environ.get("SPLITPIPE_SAFETY") == "long"
TEXTS = [f"text {n} " * (n % 5) for n in range(36)]

Stored = list[dict[str, list[int]]]


@pytest.fixture(autouse=True)
def _small_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit after a few samples, which are handed over one or two at a time."""
    monkeypatch.setattr(output, "COMMIT_NBYTES", 200)
    monkeypatch.setattr(packer, "_BUFFER_NBYTES", 100)


def stored(path: Path) -> Stored:
    with sp.open_dataset(path) as dataset:
        return [{name: array.tolist() for name, array in sample.items()} for sample in dataset]


def facts(path: Path) -> list[dict[str, Any]]:
    """What is told of every run, but for where it went on."""
    runs = token_info(path)
    for run in runs:
        assert run["report"] is not None
        del run["report"]["resumed_at"]
    return runs


class Stopped(Exception):
    pass


def stopping(documents: int) -> Callable[[int, int | None], None]:
    def progress(done: int, total: int | None) -> None:
        if done >= documents:
            raise Stopped

    return progress


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"length": 8, "eos": 0, "block": 3},
    "arrays": {
        "length": 7,
        "eos": 1,
        "bos": 2,
        "block": 4,
        "loss": "text",
        "arrays": ["document", "position", "local_position"],
    },
    "kept": {"length": 16, "eos": 0, "remainder": "keep", "block": 1},
    "padded": {"length": 16, "eos": 0, "remainder": "pad", "block": 36},
    "each": {"length": None, "eos": 0, "block": 5, "arrays": ["document", "local_position"]},
    "one a block": {"length": 300, "eos": None, "block": 2, "arrays": ["local_position"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_after_every_document(tmp_path: Path, kind: str) -> None:
    """By other blocks each time, and then not at all."""
    options = {**KINDS[kind], "bins": 2}
    whole = tmp_path / "whole"
    wanted = tokenize(TEXTS, whole, code_points, **options)
    resumed = set()
    for stop in range(0, len(TEXTS), 6):
        path = tmp_path / str(stop)
        with contextlib.suppress(Stopped):
            tokenize(TEXTS, path, code_points, progress=stopping(stop), **options)
        with contextlib.suppress(Stopped):
            other = {**options, "block": 1 + stop % 5}
            tokenize(TEXTS, path, code_points, progress=stopping(stop + 12), **other)
        # What is there by now is the beginning of it.
        if path.exists() and token_info(path)[-1]["report"] is None:
            there = stored(path)
            assert there == stored(whole)[: len(there)]
        done = path.exists() and token_info(path)[-1]["report"] is not None
        report = tokenize(TEXTS, path, code_points, overwrite=done, **options)
        resumed.add(report.resumed_at)
        assert stored(path) == stored(whole)
        assert facts(path) == facts(whole)
        told, said = report.to_json(), wanted.to_json()
        for name in ("path", "resumed_at"):
            del told[name], said[name]
        assert told == said
        assert check_dataset(path).ok
    assert len(resumed) > (2 if options["block"] < 36 else 0)


@pytest.mark.parametrize("source", ["pipeline", "function", "list", "dataset"])
def test_from_every_kind_of_source_with_workers(tmp_path: Path, source: str) -> None:
    with sp.DatasetWriter(tmp_path / "source", "str") as writer:
        writer.write_many(TEXTS)
    sources: dict[str, Any] = {
        "pipeline": sp.Pipeline(TEXTS).map(str.upper),
        "function": lambda: iter(TEXTS),
        "list": TEXTS,
        "dataset": tmp_path / "source",
    }
    options: Any = {"length": 8, "eos": 0, "block": 2, "bins": 2}
    path, whole = tmp_path / "tokens", tmp_path / "whole"
    for stop in (10, 20):
        stop_it = stopping(stop)
        with pytest.raises(Stopped):
            tokenize(sources[source], path, code_points, workers=1, progress=stop_it, **options)
    assert tokenize(sources[source], path, code_points, **options).resumed_at >= 10
    tokenize(sources[source], whole, code_points, **options)
    assert stored(path) == stored(whole)


def _change(call: Call) -> bool:
    return call.changes


def history(path: Path) -> None:
    """One run, and one that adds to it."""
    options: Any = {"length": 16, "eos": 0, "bins": 1, "remainder": "pad", "append": True}
    if not path.exists() or _finished(path) < 1:
        tokenize(TEXTS[:12], path, code_points, block=6, **options)
    if _finished(path) < 2:
        tokenize(TEXTS[12:], path, code_points, block=6, **options)


def _finished(path: Path) -> int:
    try:
        return sum(run["report"] is not None for run in token_info(path))
    except (FormatError, StorageError):
        return 0


@pytest.mark.long
@pytest.mark.deadline(600 if LONG else 60)
def test_a_disk_that_fails_at_every_call(tmp_path: Path) -> None:
    at, wanted, resumed = 0, tmp_path / "wanted", 0
    history(wanted)
    while True:
        at += 1 if LONG else 3
        path = tmp_path / str(at)
        number = errno.ENOSPC if at % 2 else errno.EIO
        strike = Strike(at, fail(number), chosen=_change, forever=True)
        with contextlib.suppress(StorageError), Tap(path, strike):
            history(path)
        if strike.struck is None:
            break
        history(path)
        assert stored(path) == stored(wanted), strike.struck
        assert facts(path) == facts(wanted), strike.struck
        resumed += token_info(path)[-1]["report"]["resumed_at"] > 0
    assert at > 60
    assert resumed > 1


@pytest.mark.long
@pytest.mark.deadline(600 if LONG else 60)
@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_at_every_call(tmp_path: Path, overwrite: bool) -> None:
    """Whatever is replaced is there, with what is told of it, until something else is."""
    at, whole, resumed = 0, tmp_path / "whole", set()
    options: Any = {"length": 16, "eos": 0, "bins": 1, "block": 12, "remainder": "keep"}
    tokenize(TEXTS, whole, code_points, **options)
    old = tmp_path / "old"
    tokenize(["old"], old, code_points, **options)
    while True:
        at += 1 if LONG else 2
        path = tmp_path / str(at)
        if overwrite:
            tokenize(["old"], path, code_points, **options)
        strike = Strike(at, die, chosen=_change)

        def work(path: Path = path, strike: Strike = strike) -> None:
            with Tap(path, strike):
                tokenize(TEXTS, path, code_points, overwrite=overwrite, **options)

        if run_in_child(work) == 0:
            break
        if overwrite and stored(path) == stored(old):
            assert facts(path) == facts(old), at
            tokenize(TEXTS, path, code_points, overwrite=True, **options)
        elif _finished(path):
            assert at > 30
        else:
            resumed.add(tokenize(TEXTS, path, code_points, **options).resumed_at)
        assert stored(path) == stored(whole), at
        assert facts(path) == facts(whole), at
    assert at > 40
    assert len(resumed) >= 3


class TestRefusals:
    @pytest.fixture
    def begun(self, tmp_path: Path) -> Path:
        path = tmp_path / "tokens"
        with pytest.raises(Stopped):
            tokenize(TEXTS, path, code_points, length=8, eos=0, block=3, progress=stopping(20))
        assert token_info(path)[-1]["report"] is None
        return path

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"length": 9}, "of another packing"),
            ({"eos": 1}, "of another packing"),
            ({"tokenizer": str.encode}, "of another tokenizer"),
            ({"source": TEXTS[1:]}, "of another source"),
            ({"text": str.upper}, "of another text"),
            ({"append": True, "length": 9}, "of another packing"),
        ],
        ids=str,
    )
    def test_of_another_call(self, begun: Path, changed: dict[str, Any], message: str) -> None:
        before = stored(begun)
        call: dict[str, Any] = {
            "source": TEXTS,
            "path": begun,
            "tokenizer": code_points,
            "length": 8,
            "eos": 0,
            **changed,
        }
        with pytest.raises(FormatError, match=f"not finished, {message}"):
            tokenize(**call)
        assert stored(begun) == before
        tokenize(**call | {"append": False}, overwrite=True)
        assert len(token_info(begun)) == 1

    def test_of_another_source_that_is_called_the_same(self, begun: Path) -> None:
        others = [text.upper() for text in TEXTS]
        with pytest.raises(FormatError, match="are not what this one has"):
            tokenize(others, begun, code_points, length=8, eos=0)
        empty = [""] * len(TEXTS)
        with pytest.raises(FormatError, match="tokens more than there are now"):
            tokenize(empty, begun, code_points, length=8, eos=0)
        assert tokenize(TEXTS, begun, code_points, length=8, eos=0).resumed_at > 0

    def test_of_a_stream_that_became_short(self, tmp_path: Path) -> None:
        lines = list(TEXTS)

        def source() -> Iterator[str]:
            return iter(lines)

        options: Any = {"length": 8, "eos": 0, "block": 3}
        with pytest.raises(Stopped):
            tokenize(source, tmp_path / "x", code_points, progress=stopping(20), **options)
        del lines[10:]
        with pytest.raises(FormatError, match="the stream ends after 10 records"):
            tokenize(source, tmp_path / "x", code_points, **options)

    def test_of_one_that_was_changed_since(self, begun: Path) -> None:
        with sp.DatasetWriter(begun, append=True) as writer:
            writer.delete(0)
        with pytest.raises(FormatError, match="was changed since"):
            tokenize(TEXTS, begun, code_points, length=8, eos=0)

    def test_of_one_that_is_finished(self, tmp_path: Path) -> None:
        tokenize(TEXTS, tmp_path / "x", code_points, length=8, eos=0)
        with pytest.raises(StorageError):
            tokenize(TEXTS, tmp_path / "x", code_points, length=8, eos=0)

    def test_nonsense_beside_it(self, begun: Path) -> None:
        note = begun / output.NAME
        document = json.loads(note.read_text())
        for states in (3, [], [{"generation": 1}], [{"x": 1}], None):
            document["unfinished"]["states"] = states
            note.write_text(json.dumps(document))
            with pytest.raises(FormatError, match="was changed since"):
                tokenize(TEXTS, begun, code_points, length=8, eos=0)
