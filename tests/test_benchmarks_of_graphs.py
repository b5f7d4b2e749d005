"""The benchmarks of graphs measure what they say: they run, and they catch wrong results."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.base import Context, WrongResult
from benchmarks.cases import CASES, graphs
from benchmarks.cases.seeing import MODES
from benchmarks.nested import NestedWork
from benchmarks.processor import processor_s
from benchmarks.sequences import CAPACITY, Sequences
from benchmarks.systems.graphs_ import PythonGraphs
from benchmarks.systems.packing_ import InlinePacking, PlainPacking
from benchmarks.systems.seeing_ import Seeing
from benchmarks.work import ArrayWork
from tests.test_benchmarks import FAULTS, ListRun, context


def test_strings_of_another_batch_are_seen() -> None:
    work = NestedWork(ArrayWork((4, 8, 8), "uint8"))
    batch = work.reusing(0).make(5)
    batch["origin"]["names"][2] += "x"
    with pytest.raises(WrongResult, match="strings"):
        work.check(batch, 5)


class LocalGraphs(PythonGraphs):
    """Graphs in this process, into whose streams a fault may be put."""

    def __init__(self, fault: Callable[[list[Any]], list[Any]] = lambda items: items) -> None:
        self._fault = fault

    def chain(self, work: Any, count: int, *, hops: int) -> ListRun:
        make = work.reusing(0).make
        return ListRun(self._fault([make(number) for number in range(count)]))

    def mixed(self, count: int, weights: Sequence[float]) -> ListRun:
        return ListRun(self._fault(list(super().mixed(count, weights))))

    def branches(self, function: Any, count: int, *, size: int, apart: bool) -> dict[str, ListRun]:
        numbers = [function(number) for number in range(count)]
        batches = [numbers[first : first + size] for first in range(0, count, size)]
        negated = self._fault([-number for number in numbers])
        return {"train": ListRun(batches), "eval": ListRun(negated)}

    def workers_s(self, run: Any) -> float:
        return 0.0

    def randoms(self, count: int, *, random: bool) -> ListRun:
        return ListRun(self._fault(list(super().randoms(count, random=random))))


SMALL = ArrayWork((16, 512), "uint16")
GRAPHS: dict[str, Callable[[Any, Context], Iterator[Any]]] = {
    "chain": lambda system, context: graphs.chain(system, context, work=SMALL),
    **{name: CASES[name].function for name in ("mix", "branches", "random")},
}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_faultless_graph_is_measured(tmp_path: Path, case: str) -> None:
    rounds = GRAPHS[case](LocalGraphs(), context(tmp_path))
    next(rounds)
    assert set(next(rounds)) <= {metric.name for metric in GRAPH_METRICS[case]}


GRAPH_METRICS = {name: CASES["chain_1MB" if name == "chain" else name].metrics for name in GRAPHS}


@pytest.mark.parametrize("case", GRAPHS)
@pytest.mark.parametrize("fault", ["swapped", "repeated"])
def test_a_graph_with_a_fault_has_no_figures(tmp_path: Path, case: str, fault: str) -> None:
    # Two neighbours of a mix may be swapped where they have different sources: those that are not
    # the next of theirs are seen, so let it be all of them.
    spoil = (lambda items: items[::-1]) if (case, fault) == ("mix", "swapped") else FAULTS[fault]
    rounds = GRAPHS[case](LocalGraphs(spoil), context(tmp_path))
    with pytest.raises(WrongResult):
        list(islice(rounds, 2))


def test_a_mix_of_other_weights_is_found_out(tmp_path: Path) -> None:
    system = LocalGraphs()
    mixed = system.mixed
    system.mixed = lambda count, weights: mixed(count, weights[::-1])  # type: ignore[method-assign]
    with pytest.raises(WrongResult, match="source"):
        next(graphs.mixing(system, context(tmp_path)))


class SpoiledPacking(PlainPacking):
    """Packs and batches with a fault."""

    def __init__(self, fault: Callable[[list[Any]], list[Any]]) -> None:
        self._fault = fault

    def packs(self, *arguments: Any, **options: Any) -> ListRun:
        return ListRun(self._fault(list(super().packs(*arguments, **options))))

    def batches(self, *arguments: Any, **options: Any) -> ListRun:
        return ListRun(self._fault(list(super().batches(*arguments, **options))))


def _cut(items: list[Any]) -> list[Any]:
    """The last token of the first sequence is padding."""
    first = items[0]
    if isinstance(first, dict):
        first["tokens"][int(first["lengths"][0]) - 1] = 0
    else:
        first[0, np.count_nonzero(first[0]) - 1] = 0
    return items


@pytest.mark.parametrize("case", ["pack", "bucket"])
@pytest.mark.parametrize(
    "fault", [lambda items: items[:-1], lambda items: [*items, items[0]], _cut]
)
def test_sequences_that_are_lost_doubled_or_cut_are_seen(
    tmp_path: Path, case: str, fault: Callable[[list[Any]], list[Any]]
) -> None:
    with pytest.raises(WrongResult):
        next(CASES[case].function(SpoiledPacking(fault), context(tmp_path)))


def test_plain_packing_and_ours_need_as_many_packs() -> None:
    lengths = Sequences("chats", 3000, 0).lengths
    ours, plain = (one.plan(lengths, CAPACITY) for one in (InlinePacking(), PlainPacking()))
    assert ours.max() == plain.max()
    assert np.bincount(plain, lengths).max() <= CAPACITY


def test_a_blind_run_counts_nothing_and_gives_the_same() -> None:
    given, counted = {}, {}
    for mode in MODES:
        with Seeing().run(500, mode) as loader:
            given[mode] = [tuple(item) for item in loader]
            counted[mode] = loader.stats()[0].messages
    assert given["blind"] == given["seen"] == given["asked"]
    assert counted["blind"] == 0 < counted["seen"]


def test_processor_time_is_that_of_children_too() -> None:
    script = "import time\nwhile time.process_time() < 0.05: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert processor_s() > time.process_time() + 0.04
        child.communicate(b"\n")
