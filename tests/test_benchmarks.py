"""The benchmarks measure what they say: they run, they catch wrong results, they judge fairly.

Only systems that need nothing beyond splitpipe's own requirements take part here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from benchmarks import bars, harness
from benchmarks.bars import BARS, Bar, Condition, judge
from benchmarks.base import Context, WrongResult
from benchmarks.cases import CASES
from benchmarks.cases.columns import Series
from benchmarks.cases.storage import read_text
from benchmarks.cases.throughput import chain, ordered_map, tiny
from benchmarks.cli import main
from benchmarks.data import binary_records, text_records, token_records
from benchmarks.harness import CaseResult, SystemResult, run_case
from benchmarks.nested import NestedWork
from benchmarks.report import number
from benchmarks.systems import SYSTEMS, System, adapter_of, load, parse
from benchmarks.systems.synthetic_ import make_dataset
from benchmarks.work import ArrayWork, DictWork, MixedWork, heavy_tail

OWN = ("splitpipe", "splitpipe@2")


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Run the command line at the smallest scale; gives the results file."""
    results = tmp_path / "results.json"
    status = main(["--tiny", "--dir", str(tmp_path), "--json", str(results), *arguments])
    document: dict[str, Any] = json.loads(results.read_text())
    assert status == 0, document
    return document


@pytest.mark.long
@pytest.mark.deadline(400)
def test_every_case_runs_with_splitpipe(tmp_path: Path) -> None:
    systems = [f"--system={name}" for name in OWN]
    document = run(tmp_path, "--suite", "full", "--rounds", "1", *systems)
    for name, case in CASES.items():
        measured = document["cases"][name]["systems"]
        assert measured, name
        for system, result in measured.items():
            assert result["skipped"] is None, (name, system, result["skipped"])
            assert set(result["summary"]) >= {metric.name for metric in case.metrics}
    judged = {bar["text"]: bar for bar in document["bars"]}
    assert judged["first batch, ms"]["met"] in (True, False)
    assert judged["W1 random [i], x lmdb"]["met"] is None


def test_systems_run_side_by_side_and_into_the_results_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "above\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nbelow\n", encoding="utf-8"
    )
    systems = ("--system", "memcpy", "--system", "mpqueue@2", "--system", "lmdb")
    document = run(tmp_path, "--case", "batch_1MB", *systems, "--markdown", str(page))
    measured = document["cases"]["batch_1MB"]["systems"]
    for name in ("memcpy", "mpqueue@2"):
        summary = measured[name]["summary"]["batches_s"]
        assert summary["n"] == 2
        assert 0 < summary["min"] <= summary["median"] <= summary["max"]
    # lmdb stores things: it is left out with its reason, installed or not, and fails nothing.
    assert measured["lmdb"]["skipped"]
    assert document["machine"]["cores"] >= 1
    assert "numpy" in document["versions"] or "splitpipe" not in document["versions"]
    assert "batches_s [batches/s]" in capsys.readouterr().out
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert "| memcpy | 2 |" in text
    # Nothing of the datasets and logs is left.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.md", "results.json"]


def test_a_peer_that_is_not_installed_is_skipped_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYSTEMS, "absent", System("absent_", "A", requires=("no_such_module_x",)))
    result = run_case(
        CASES["w1_write"], ["absent"], scale="tiny", seed=0, directory=tmp_path
    ).systems["absent"]
    assert result.skipped == "not installed (no_such_module_x)"
    assert not result.failed


def test_a_system_that_does_not_answer_in_time_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "PREPARE_TIMEOUT_S", 0.001)
    result = run_case(
        CASES["batch_1MB"], ["memcpy"], scale="tiny", seed=0, directory=tmp_path
    ).systems["memcpy"]
    assert result.failed
    assert "no answer within" in str(result.skipped)


def context(tmp_path: Path) -> Context:
    return Context("tiny", tmp_path, seed=0, workers=1)


class ListStorage:
    """A storage system in memory, into whose reading a fault may be put."""

    def __init__(self, fault: Callable[[list[bytes]], list[bytes]] = lambda data: data) -> None:
        self._fault = fault
        self._records: list[bytes] = []

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        self._records = list(records)

    def open(self, directory: Path) -> ListStorage:
        return self

    def each(self, indices: Sequence[int]) -> Iterator[bytes]:
        return (self._records[index] for index in indices)

    def get_batch(self, indices: Sequence[int]) -> Sequence[bytes]:
        return [self._records[index] for index in indices]

    def sequential(self) -> Iterator[bytes]:
        return iter(self._fault(list(self._records)))

    def shuffled(self, seed: int) -> Iterator[bytes]:
        order = np.random.default_rng(seed).permutation(len(self._records)).tolist()
        return (self._records[index] for index in order)

    def close(self) -> None:
        """Nothing is held open."""


def test_a_faultless_storage_is_measured(tmp_path: Path) -> None:
    rounds = read_text(ListStorage(), context(tmp_path))
    assert next(rounds)["records"] == 500
    assert next(rounds)["sequential_rec_s"] > 0


@pytest.mark.parametrize(
    "fault",
    [
        lambda data: data[:-1],
        lambda data: [*data[:-1], data[0]],
        lambda data: [*data, data[0]],
        lambda data: [*data[:9], data[9][:-1] + b"#", *data[10:]],
        lambda data: [*data[:9], b"00000003" + data[9][8:], *data[10:]],
        lambda data: [*data[:9], b"", *data[10:]],
    ],
    ids=["short", "repeated", "long", "flipped", "swapped stamp", "empty"],
)
def test_a_storage_with_a_fault_has_no_figures(
    tmp_path: Path, fault: Callable[[list[bytes]], list[bytes]]
) -> None:
    with pytest.raises(WrongResult):
        next(read_text(ListStorage(fault), context(tmp_path)))


def test_a_storage_that_does_not_shuffle_is_found_out(tmp_path: Path) -> None:
    system = ListStorage()
    system.shuffled = lambda seed: system.sequential()  # type: ignore[method-assign]
    with pytest.raises(WrongResult, match="not shuffled"):
        next(read_text(system, context(tmp_path)))


class ListRun:
    """A run of items that are already there."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = list(items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def close(self) -> None:
        """Nothing runs."""


class LocalPipeline:
    """A pipeline system in this process, into whose stream a fault may be put."""

    def __init__(self, fault: Callable[[list[Any]], list[Any]] = lambda items: items) -> None:
        self._fault = fault

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> ListRun:
        return ListRun(self._fault([function(number) for number in range(count)]))

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> ListRun:
        return ListRun(self._fault(list(generate(count))))

    def batches(self, work: Any, count: int, *, workers: int, epochs: int = 1) -> ListRun:
        make = work.reusing(0).make
        return ListRun(self._fault([make(number) for number in range(count)]))

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> ListRun:
        items: Iterable[Any] = generate(count)
        for _ in range(hops):
            items = middle(items)
        return ListRun(self._fault(list(items)))


PIPELINES: dict[str, Callable[[Any, Context], Iterator[Any]]] = {
    "tiny": tiny,
    "chain": lambda system, context: chain(system, context, hops=2),
    "map": ordered_map,
    "batches": CASES["batch_1MB"].function,
}
FAULTS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "short": lambda items: items[:-1],
    "swapped": lambda items: [*items[:10], items[11], items[10], *items[12:]],
    "repeated": lambda items: [*items[:10], items[9], *items[11:]],
}


@pytest.mark.parametrize("case", PIPELINES)
def test_a_faultless_pipeline_is_measured(tmp_path: Path, case: str) -> None:
    rounds = PIPELINES[case](LocalPipeline(), context(tmp_path))
    next(rounds)
    assert all(value > 0 for value in next(rounds).values())


@pytest.mark.parametrize("case", PIPELINES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_pipeline_with_a_fault_has_no_figures(tmp_path: Path, case: str, fault: str) -> None:
    rounds = PIPELINES[case](LocalPipeline(FAULTS[fault]), context(tmp_path))
    with pytest.raises(WrongResult):
        list(islice(rounds, 2))


WORKS = {
    "array": ArrayWork((4, 512), "uint16"),
    "dict": DictWork(ArrayWork((4, 8, 8), "uint8")),
    "nested": NestedWork(ArrayWork((4, 8, 8), "uint8")),
    "mixed": MixedWork(1_000, 20_000),
}


@pytest.mark.parametrize("name", WORKS)
def test_a_batch_of_another_number_or_content_is_seen(name: str) -> None:
    work: Any = WORKS[name]
    batch = work.reusing(0).make(5)
    work.check(batch, 5)
    work.touch(batch, 5)
    with pytest.raises(WrongResult):
        work.touch(work.reusing(0).make(6), 5)
    array = batch
    while isinstance(array, dict):
        array = next(iter(array.values()))
    array.reshape(-1)[array.size // 8] ^= 1
    with pytest.raises(WrongResult):
        work.check(batch, 5)


def test_rows_and_whole_batches_are_the_same() -> None:
    work = ArrayWork((4, 512), "uint16")
    rows = np.stack([work.row(number).copy() for number in range(20, 24)])
    assert np.array_equal(rows, work.make(5))
    assert np.array_equal(rows, work.fill(5, lambda shape, dtype, near: np.empty(shape, dtype)))


def test_a_reused_array_is_the_same_and_a_new_one_is_not() -> None:
    work = ArrayWork((4, 512), "uint16")
    assert work.make(0) is work.make(1)
    rotating = work.reusing(2)
    assert rotating.make(0) is rotating.make(2)
    assert rotating.make(0) is not rotating.make(1)
    assert work.reusing(0).make(0) is not work.reusing(0).make(1)


def test_costs_are_heavy_tailed_and_always_the_same() -> None:
    costs = heavy_tail(1500, 0)
    assert costs == heavy_tail(1500, 0)
    assert max(costs) > 20 * sorted(costs)[750]
    assert max(costs) < sum(costs) / 20


def test_a_synthetic_dataset_is_what_a_writer_would_have_written(tmp_path: Path) -> None:
    count = make_dataset(tmp_path / "made", stripes=3)
    assert sp.check_dataset(tmp_path / "made").findings == ()
    with sp.open_dataset(tmp_path / "made") as dataset:
        assert len(dataset) == count
        assert [int.from_bytes(record, "little") for record in dataset] == list(range(count))


@pytest.mark.parametrize(
    "fault",
    [
        lambda batch: {**batch, "target": batch["target"][::-1]},
        lambda batch: {**batch, "target": batch["target"].astype(np.float32)},
        lambda batch: {name: batch[name] for name in ("history", "target")},
    ],
    ids=["swapped", "rounded", "short of a column"],
)
def test_columns_that_differ_are_seen(fault: Callable[[Any], Any]) -> None:
    series = Series.made(10, seed=0)
    rows = np.array([3, 1, 4])
    series.check(series.columns(rows), rows, None)
    with pytest.raises(WrongResult):
        series.check(fault(series.columns(rows)), rows, None)


@pytest.mark.parametrize(
    ("records", "low", "high"),
    [
        (text_records(200, 0), 100, 300),
        (binary_records(50, 0, low=12 << 10, high=150 << 10), 12 << 10, 150 << 10),
        (token_records(50, 0), 4096, 4096),
    ],
)
def test_records_are_of_the_size_they_say(records: Any, low: int, high: int) -> None:
    sizes = [len(record) for record in records]
    assert low <= min(sizes)
    assert max(sizes) <= high
    assert records.nbytes == sum(sizes)
    assert records.check_all(reversed(list(records))) == list(reversed(range(len(records))))


def result(case: str, **medians: float) -> CaseResult:
    """Results of a case: ``splitpipe=2.0`` is the figure of metric ``m``."""
    made = CaseResult(case, case, "full")
    for system, value in medians.items():
        made.systems[system] = SystemResult(system, rounds=[{"m": value}])
    return made


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        (Condition("m", ">=", 1.5, "peer"), True),
        (Condition("m", ">=", 2.5, "peer"), False),
        (Condition("m", "<=", 2.0, "peer"), True),
        (Condition("m", "<=", 5.0), False),
        (Condition("m", ">=", 6.0), True),
        (Condition("m", ">=", 1.0, "absent"), None),
        (Condition("other", ">=", 1.0), None),
    ],
)
def test_a_bar_is_met_missed_or_open(
    monkeypatch: pytest.MonkeyPatch, condition: Condition, met: bool | None
) -> None:
    monkeypatch.setattr(bars, "BARS", (Bar("text", "case", (condition,)),))
    (verdict,) = judge({"case": result("case", splitpipe=6.0, peer=3.0)})
    assert verdict.met is met


def test_one_of_several_conditions_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    either = (Condition("m", ">=", 100.0), Condition("m", ">=", 0.6, "inline"))
    monkeypatch.setattr(bars, "BARS", (Bar("text", "case", either),))
    for inline, met in ((9.0, True), (11.0, False)):
        (verdict,) = judge({"case": result("case", splitpipe=6.0, inline=inline)})
        assert verdict.met is met


def test_bars_name_what_their_cases_measure() -> None:
    for bar in BARS:
        case = CASES[bar.case]
        names = {metric.name for metric in case.metrics}
        for condition in bar.conditions:
            assert condition.metric in names, bar.text
            assert {condition.system, condition.reference} - {None} <= set(case.bars), bar.text


def test_every_system_of_a_case_is_known_and_of_its_kind() -> None:
    for case in CASES.values():
        for spec in (*case.bars, *case.others, case.baseline):
            module, adapter = adapter_of(parse(spec)[0], case.kind)
            assert adapter or case.name == "import", (case.name, spec)
            path = Path(harness.ROOT, "benchmarks", "systems", f"{module}.py")
            assert path.exists(), path


def test_an_adapter_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(LookupError, match="no storage adapter"):
        load("mpqueue", "storage")


def test_names_that_are_not_known_are_refused() -> None:
    with pytest.raises(SystemExit, match="no_such_case"):
        main(["--case", "no_such_case"])


def test_the_listing_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in CASES)


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (5.678, "5.68"), (1234.5, "1234"), (3456789, "3.46M")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
