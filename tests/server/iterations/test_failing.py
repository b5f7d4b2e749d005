"""What goes wrong in an iteration: told at its place, or left out and counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.errors import FormatError, GraphError, InvalidRequest, NotFound, ResumeError
from splitpipe.schema import Schema
from splitpipe.server.iterations.description import IterationSpec, ModuleRef
from splitpipe.server.iterations.made import Broken, Ended, Made
from splitpipe.server.iterations.streams import count, stream_of
from splitpipe.testing.faults import Damaged
from splitpipe.wire.values import decode
from tests.server.iterations.making import dataset_in, modules_in, whole

HEAD = "from splitpipe.server.modules import categorizer, collater, filter, preprocessor\n"


def ref(name: str, **params: Any) -> ModuleRef:
    return ModuleRef(name=name, params=params)


def spec_of(**given: Any) -> IterationSpec:
    return IterationSpec(dataset="numbers", **{"batch_size": 4, **given})


def events(spec: IterationSpec, dataset: Any, modules: Path | None = None, **more: Any) -> Any:
    with stream_of(spec, dataset, modules, **{"encode": whole, **more}) as stream:
        return list(until_broken(stream))


def until_broken(stream: Any) -> Iterator[Any]:
    for event in stream:
        yield event
        if isinstance(event, Broken):
            return


def rows(made: Any) -> list[int]:
    return [n for event in made if isinstance(event, Made) for n in event.frames[0]["n"].tolist()]


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "theirs.py").write_text(HEAD + text, encoding="utf-8")
    return folder


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Any]:
    """A dataset of 40 records, of which number 13 cannot be read."""
    with sp.DatasetWriter(tmp_path / "damaged", {"n": "int64", "text": "str"}, bins=1) as writer:
        writer.write_many([{"n": n, "text": f"text number {n}!"} for n in range(40)])
    (path,) = [
        one for one in (tmp_path / "damaged").iterdir() if b"text number 13!" in one.read_bytes()
    ]
    with Damaged(path) as file:
        file.flip(8 * file.content.index(b"text number 13!"))
        with sp.open_dataset(tmp_path / "damaged") as dataset:
            yield dataset


class TestReading:
    @pytest.mark.parametrize("remote", [False, True])
    @pytest.mark.parametrize("filters", [[], [ref("not_every", n=50)]])
    def test_a_record_that_cannot_be_read_ends_it_at_its_batch(
        self, tmp_path: Path, damaged: Any, filters: list[ModuleRef], remote: bool
    ) -> None:
        made = events(spec_of(filters=filters), damaged, modules_in(tmp_path), remote=remote)
        assert len(made) == 4
        broken = made[-1]
        assert (broken.sequence, broken.error.stage) == (3, "read")
        assert broken.error.kind == "CorruptRecord"
        assert "13" in broken.error.message
        if filters:
            assert broken.error.record == 13
        assert broken.error.to_json()["details"].startswith("Traceback")

    @pytest.mark.parametrize("shuffle", [None, "global"])
    def test_or_is_left_out(self, damaged: Any, shuffle: str | None) -> None:
        made = events(spec_of(on_error="skip", shuffle=shuffle), damaged)
        assert sorted(rows(made)) == [n for n in range(40) if n != 13]
        assert [event.samples for event in made[:-1]] == [4] * 9 + [3]
        failures = [one for event in made for one in event.failures]
        assert [(one.stage, one.record, one.kind) for one in failures] == [
            ("read", 13, "CorruptRecord")
        ]
        assert sum(event.failed for event in made) == 1

    def test_a_budget_ends_it(self, damaged: Any) -> None:
        assert isinstance(events(spec_of(on_error="skip", skip_budget=1), damaged)[-1], Ended)
        broken = events(spec_of(on_error="skip", skip_budget=0), damaged)[-1]
        assert isinstance(broken, Broken)
        assert (broken.sequence, broken.error.kind) == (3, "BudgetExceeded")
        assert "read failed for record 13" in broken.error.message


class TestTryingAgain:
    TEXT = """
import pathlib

@filter
class Flaky:
    def __init__(self, log: str, fails: int = 2) -> None:
        self.log, self.fails = pathlib.Path(log), fails
    def __call__(self, sample):
        tries = self.log.read_text().count(f" {sample['n']} ") if self.log.exists() else 0
        with self.log.open("a") as file:
            file.write(f" {sample['n']} ")
        if sample["n"] % 10 == 3 and tries < self.fails:
            raise OSError("busy")
        return True
"""

    @pytest.mark.parametrize(("retries", "ends"), [(2, True), (1, False)])
    def test_as_often_as_said(self, tmp_path: Path, retries: int, ends: bool) -> None:
        modules = write(tmp_path / "modules", self.TEXT)
        flaky = ref("Flaky", log=str(tmp_path / "log"))
        spec = spec_of(filters=[flaky], max_retry_count=retries)
        made = events(spec, dataset_in(tmp_path, 20), modules)
        if ends:
            assert rows(made) == list(range(20))
            assert isinstance(made[-1], Ended)
        else:
            broken = made[-1]
            assert (broken.error.stage, broken.error.record) == ("Flaky", 3)

    def test_collaters_get_the_list_anew(self, tmp_path: Path) -> None:
        text = """
tries = []

@collater
def greedy(samples):
    numbers = []
    while samples:
        numbers.append(samples.pop(0)["n"])
    tries.append(numbers)
    if len(tries) == 2:
        raise OSError("busy")
    return numbers
"""
        spec = spec_of(collater=ref("greedy"), max_retry_count=1)
        made = events(spec, dataset_in(tmp_path, 8), write(tmp_path / "modules", text))
        assert [event.frames[0] for event in made[:-1]] == [[0, 1, 2, 3], [4, 5, 6, 7]]


class TestEndingAWorker:
    TEXT = """
import os

@filter
def kills(sample, *, n: int = 7):
    if sample["n"] == n:
        os._exit(9)
    return True

@preprocessor
def kills_batch(batch, *, n: int = 9):
    if n in batch["n"].tolist():
        os._exit(9)
    return batch
"""

    @pytest.mark.deadline(120)
    def test_is_an_error_that_names_the_record(self, tmp_path: Path) -> None:
        modules = write(tmp_path / "modules", self.TEXT)
        spec = spec_of(filters=[ref("kills")], workers=1)
        broken = events(spec, dataset_in(tmp_path, 20), modules)[-1]
        assert (broken.sequence, broken.error.kind) == (1, "PoisonRecord")
        assert "record 7" in broken.error.message + broken.error.details

    @pytest.mark.deadline(120)
    @pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
    def test_or_is_left_out_and_counted(self, tmp_path: Path, workers: int) -> None:
        modules = write(tmp_path / "modules", self.TEXT)
        spec = spec_of(filters=[ref("kills")], on_error="skip", workers=workers)
        made = events(spec, dataset_in(tmp_path, 20), modules)
        assert rows(made) == [n for n in range(20) if n != 7]
        assert sum(event.failed for event in made) == 1
        assert made[-1].samples + sum(event.failed for event in made) == 20

    @pytest.mark.deadline(120)
    def test_as_a_whole_batch_is(self, tmp_path: Path) -> None:
        modules = write(tmp_path / "modules", self.TEXT)
        spec = spec_of(preprocessors=[ref("kills_batch")], on_error="skip", workers=1)
        made = events(spec, dataset_in(tmp_path, 20), modules)
        assert rows(made) == [n for n in range(20) if n not in range(8, 12)]
        assert [event.failed for event in made] == [0, 0, 4, 0, 0]


class TestAsking:
    def test_wrong_names_are_refused_at_once(self, tmp_path: Path) -> None:
        dataset, modules = dataset_in(tmp_path, 8), modules_in(tmp_path)
        with pytest.raises(FormatError, match="nowhere"):
            stream_of(spec_of(columns=["nowhere"]), dataset)
        with pytest.raises(FormatError, match="catalog"):
            stream_of(spec_of(where="n > 3"), dataset)
        with pytest.raises(NotFound, match="no filter 'nowhere'"):
            stream_of(spec_of(filters=[ref("nowhere")]), dataset, modules)
        with pytest.raises(InvalidRequest, match="parameter 'n'"):
            stream_of(spec_of(filters=[ref("not_every", n="x")]), dataset, modules)
        with pytest.raises(NotFound, match="no modules folder"):
            stream_of(spec_of(filters=[ref("not_every")]), dataset)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"batch_size": -1},
            {"batch_size": 0, "collater": ref("numbers")},
            {"batch_size": 0, "categorizer": ref("numbers")},
            {"batch_size": "4"},
            {"columns": []},
            {"columns": ["n", "n"]},
            {"shuffle": "all"},
            {"skip_budget": 3},
            {"window": 2},
            {"epochs": 0},
            {"seed": -1},
            {"replication_groups": [[0], [0]]},
            {"replication_groups": [[0], []]},
            {"world_size": 2, "replication_groups": [[0]]},
            {"lease_s": float("nan")},
            {"other": 1},
        ],
    )
    def test_descriptions_that_mean_nothing_are_refused(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match="IterationSpec"):
            spec_of(**wrong)

    def test_categories_are_plain(self, tmp_path: Path) -> None:
        text = "@categorizer\ndef odd(sample):\n    return [sample['n']]\n"
        modules = write(tmp_path / "modules", text)
        broken = events(spec_of(categorizer=ref("odd")), dataset_in(tmp_path, 8), modules)[-1]
        assert (broken.sequence, broken.error.record) == (0, 0)
        assert "returns a str, an int, a bool or a tuple" in broken.error.message

    def test_what_cannot_be_sent_is_said(self, tmp_path: Path) -> None:
        text = "@preprocessor\ndef odd(batch):\n    return {'x': [1, object()]}\n"
        modules = write(tmp_path / "modules", text)
        spec = spec_of(preprocessors=[ref("odd")])
        broken = events(spec, dataset_in(tmp_path, 8), modules, encode=None)[-1]
        assert (broken.error.stage, broken.error.kind) == ("encode", "WireError")
        assert "['x'][1]" in broken.error.message

    def test_checkpoints_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        dataset, modules = dataset_in(tmp_path, 20), modules_in(tmp_path)
        spec = spec_of(filters=[ref("not_every")])
        with stream_of(spec, dataset, modules) as stream:
            next(stream)
            told = stream.checkpoint()
        assert told is not None
        with pytest.raises(ResumeError, match="behind batch 0"):
            stream_of(spec, dataset, modules, start=0, checkpoint=told)
        with pytest.raises(ResumeError, match="version 9"):
            stream_of(spec, dataset, modules, start=1, checkpoint={**told, "version": 9})
        other = spec_of(filters=[ref("not_every")], shuffle="global")
        with pytest.raises(ResumeError, match="shuffle"):
            stream_of(other, dataset, modules, start=1, checkpoint=told)


class TestWhatIsDelivered:
    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.parametrize("filters", [[], [ref("not_every", n=100)]])
    def test_can_be_decoded(self, tmp_path: Path, workers: int, filters: list[ModuleRef]) -> None:
        fields = {"n": "int64", "image": sp.ndarray("uint8", (64, 64)), "data": "bytes"}
        with sp.DatasetWriter(tmp_path / "wide", fields) as writer:
            for n in range(12):
                image = np.full((64, 64), n, np.uint8)
                writer.write({"n": n, "image": image, "data": bytes([n]) * 5000})
        dataset = sp.open_dataset(tmp_path / "wide")
        spec = spec_of(workers=workers, filters=filters, preprocessors=[])
        made = events(spec, dataset, modules_in(tmp_path), encode=None)
        kept = range(12) if not filters else range(1, 12)
        values = [decode(event.frames) for event in made[:-1]]
        assert [n for value in values for n in value["n"].tolist()] == list(kept)
        for value in values:
            for n, image, data in zip(value["n"], value["image"], value["data"], strict=True):
                assert image.shape == (64, 64)
                assert (image == n).all()
                assert bytes(data) == bytes([n]) * 5000

    def test_columns_and_clauses_choose(self, tmp_path: Path) -> None:
        fields = {"n": "int64", "text": "str"}
        with sp.DatasetWriter(tmp_path / "kept", fields, metadata={"size": "int64"}) as writer:
            for n in range(20):
                writer.write({"n": n, "text": "x"}, meta={"size": n % 4})
        dataset = sp.open_dataset(tmp_path / "kept")
        spec = spec_of(columns=["n"], where="size = 3", batch_size=2)
        assert count(spec, dataset) == 3
        made = events(spec, dataset)
        assert [event.frames[0]["n"].tolist() for event in made[:-1]] == [[3, 7], [11, 15], [19]]
        assert list(made[0].frames[0]) == ["n"]

    def test_media_are_decoded_where_that_is_asked_for(self, tmp_path: Path) -> None:
        pytest.importorskip("PIL")
        with sp.DatasetWriter(tmp_path / "pictures", {"n": "int64", "picture": "image"}) as writer:
            for n in range(4):
                writer.write({"n": n, "picture": np.full((8, 9, 3), n, np.uint8)})
        dataset = sp.open_dataset(tmp_path / "pictures")
        for filters in ([], [ref("not_every", n=100)]):
            modules = modules_in(tmp_path)
            plain = events(spec_of(filters=filters), dataset, modules)[0].frames[0]
            assert all(isinstance(one, bytes) for one in plain["picture"])
            spec = spec_of(filters=filters, decode=True)
            (made, *_) = events(spec, dataset, modules)
            pictures = made.frames[0]["picture"]
            assert pictures.shape == (len(made.frames[0]["n"]), 8, 9, 3)
            assert pictures[:, 0, 0, 0].tolist() == made.frames[0]["n"].tolist()

    def test_closing_early_leaves_nothing(self, tmp_path: Path) -> None:
        closed = []
        spec = spec_of(filters=[ref("not_every")], workers=1)
        stream = stream_of(
            spec,
            dataset_in(tmp_path, 100),
            modules_in(tmp_path),
            close=lambda: closed.append(os.getpid()),
        )
        assert isinstance(next(stream), Made)
        told = stream.stats()
        assert told["doctor"]
        assert {"name", "busy", "waiting_in", "waiting_out"} <= set(told["stages"][0])
        stream.close()
        stream.close()
        assert closed == [os.getpid()]

    def test_binwise_needs_bins(self) -> None:
        with pytest.raises(GraphError, match="bins"):
            stream_of(spec_of(shuffle="binwise"), Bare())


class Bare:
    """A sequence that is no dataset of files."""

    schema = Schema({"n": "int64"})

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return {"n": index}
