"""`verify` finds every planted fault, names its stage, and finds none where there is none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.verification import Check
from tests.verification import planted

NUMBERS = 40
FORK = {"start_method": "fork"}
"""How workers start is tried elsewhere; here they start quickly."""


def outcomes(found: sp.Verification) -> dict[str, str]:
    return {check.name: check.outcome for check in found.checks}


def broken(pipe: sp.Pipeline, check: str, **options: Any) -> Check:
    """The one check that has to be broken."""
    found = sp.verify(pipe, checks=[check], epochs=1, **options)
    assert not found.ok
    return found.broken[0]


@pytest.mark.deadline(120)
def test_a_clean_graph_keeps_everything() -> None:
    found = sp.verify(planted.clean(), items=30, workers=2, **FORK)
    assert found.ok, found.text
    assert found.broken == ()
    assert set(outcomes(found)) == {
        "resume",
        *("repeat", "process", "workers 0", "workers 1", "workers 2", "once", "leaks", "memory"),
        *("executor process", "executor thread", "executor thread x 2"),
        *("executor process over zmq", "ranks 1", "ranks 2", "ranks 4"),
    }
    assert found.unchecked == ()
    assert json.loads(json.dumps(found.to_json()))["ok"] is True
    assert found.verdict in found.text


REPEAT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "hidden_state": (planted.hidden_state, "keeps something"),
    "from_random": (planted.from_random, "draws from random"),
    "from_numpy": (planted.from_numpy, "draws from numpy.random"),
    "carrying": (planted.carrying, "carries along"),
    "by_time": (planted.by_time, "perf_counter"),
}


@pytest.mark.parametrize("name", REPEAT)
def test_what_a_second_run_shows(name: str) -> None:
    function, told = REPEAT[name]
    pipe = sp.Pipeline(planted.WORDS).map(planted.innocent).map(function).map(planted.innocent)
    check = broken(pipe.batch(4, collate=list), "repeat")
    assert check.stage == name
    assert told in check.advice


def test_a_file_that_is_read_on_from_where_it_was() -> None:
    planted.LINES.seek(0)
    planted.LINES.write("".join(f"{number}\n" for number in range(1000)))
    planted.LINES.seek(0)
    check = broken(sp.Pipeline(planted.WORDS).map(planted.next_line), "repeat")
    assert check.stage == "next_line"


def test_a_stage_that_changes_what_the_source_gives_again() -> None:
    arrays = [np.zeros(3) for _ in range(9)]
    pipe = sp.Pipeline(arrays).map(planted.innocent).map(lambda pair: pair[1], name="out")
    check = broken(pipe.map(planted.in_place), "repeat")
    assert check.stage == "in_place"
    assert "in place" in check.advice


def test_a_source_that_is_used_up() -> None:
    used = iter(range(30))
    check = broken(sp.Pipeline(lambda: used).map(planted.innocent), "repeat")
    assert check.stage == "source"
    assert "used up" in check.advice


def test_a_free_stage_that_drops_others_every_time() -> None:
    pipe = sp.Pipeline(range(31)).map(planted.innocent).through(planted.half)
    assert broken(pipe, "repeat").stage == "half"


def test_a_branch_of_a_graph() -> None:
    numbers = sp.Pipeline(range(20))
    left, right = numbers.map(planted.innocent), numbers.map(planted.hidden_state)
    check = broken(sp.zip(left, right).map(planted.innocent), "repeat")
    assert check.stage == "hidden_state"


def test_the_order_of_a_set() -> None:
    pipe = sp.Pipeline(planted.WORDS).map(planted.innocent).map(planted.by_set)
    check = broken(pipe, "process")
    assert check.stage == "by_set"
    assert "set" in check.advice


def test_a_dependence_on_the_process() -> None:
    check = broken(sp.Pipeline(planted.WORDS).map(planted.by_process), "process")
    assert (check.stage, "getpid" in check.advice) == ("by_process", True)


@pytest.mark.parametrize(
    ("function", "told"),
    [(planted.since_the_last, "did before"), (planted.by_worker, "current_process")],
)
def test_a_dependence_on_workers(function: Callable[[Any], Any], told: str) -> None:
    pipe = sp.Pipeline(range(NUMBERS)).map(function).map(planted.innocent).batch(4, collate=list)
    found = sp.verify(pipe, checks=["repeat", "workers"], workers=2, epochs=1, **FORK)
    name = function.__name__
    assert outcomes(found)["repeat"] == "kept"
    assert outcomes(found)["workers 0"] == "kept"
    assert outcomes(found)["workers 2"] == "broken"
    assert found.stages == (name,)
    assert told in found.broken[-1].advice


def test_a_stage_that_cannot_begin_in_the_middle() -> None:
    pipe = sp.Pipeline(range(NUMBERS)).map(planted.innocent).map(planted.with_the_last)
    found = sp.verify(pipe.batch(4, collate=list), checks=["repeat", "resume"], workers=2, **FORK)
    assert outcomes(found) == {"repeat": "kept", "resume": "broken"}
    assert found.stages == ("with_the_last",)
    assert "after 1 items of epoch 0" in found.broken[0].detail
    assert "state_dict" in found.broken[0].advice


class TestRanks:
    def test_a_dependence_on_what_else_a_rank_has(self) -> None:
        pipe = sp.Pipeline(range(NUMBERS)).map(planted.innocent).map(planted.with_the_last)
        found = sp.verify(pipe.batch(4, collate=list), checks=["repeat", "ranks"])
        assert outcomes(found) == {
            "repeat": "kept",
            "ranks 1": "kept",
            "ranks 2": "broken",
            "ranks 4": "broken",
        }
        assert found.stages == ("with_the_last",)

    def test_a_graph_that_is_dealt_out_already(self) -> None:
        dealt = sp.Pipeline(range(NUMBERS), shuffle="global").shard(1, 2).batch(4)
        for pipe in (dealt, dealt.through(planted.numbered)):
            found = sp.verify(pipe, checks=["ranks"], items=6)
            assert set(outcomes(found).values()) == {"kept"}
            assert "as far as 'shard' reads it" in found.checks[0].detail


def test_what_comes_later_is_pointless_where_inline_is_not_the_same_twice() -> None:
    pipe = sp.Pipeline(planted.WORDS).map(planted.hidden_state)
    found = sp.verify(pipe, checks=["repeat", "process", "workers", "executor", "once"])
    assert [check.outcome for check in found.checks] == ["broken", *["not checked"] * 3]


class TestLeaks:
    def test_memory_that_every_pass_keeps(self) -> None:
        pipe = sp.Pipeline(range(200)).map(planted.innocent).map(planted.hoarding)
        found = sp.verify(pipe, checks=["leaks"], epochs=1, **FORK)
        assert outcomes(found) == {"leaks": "kept", "memory": "broken"}
        assert found.stages == ("hoarding",)
        assert "planted.py" in found.broken[0].detail
        planted._kept.clear()

    def test_descriptors(self) -> None:
        pipe = sp.Pipeline(range(5)).map(planted.innocent).map(planted.opening)
        try:
            check = broken(pipe, "leaks", **FORK)
        finally:
            planted.close_files()
        assert check.stage == "opening"
        assert "descriptors: /dev/null" in check.detail


class TestExtent:
    def test_only_the_first_items_are_compared(self) -> None:
        taken = []

        def endless() -> Iterator[int]:
            for number in iter(int, 1):
                taken.append(number)
                yield number

        found = sp.verify(sp.Pipeline(endless), items=7, checks=["repeat"])
        assert found.ok
        assert (found.items, found.whole) == (7, False)
        assert len(taken) == 2 * 2 * 7
        assert "the first 7 items of each of 2 epochs" in found.text

    def test_time_that_is_over_is_said(self) -> None:
        pipe = sp.Pipeline(range(10_000)).map(planted.slow)
        found = sp.verify(pipe, seconds=0.1, checks=["repeat", "process", "workers"], epochs=1)
        assert 1 <= found.items < 5
        assert outcomes(found)["repeat"] == "kept"
        assert "no time was left" in found.checks[-1].detail
        assert found.unchecked

    def test_an_error_of_the_graph_has_its_place(self) -> None:
        def failing(x: int) -> int:
            if x == 12:
                raise ValueError("twelve")
            return x

        pipe = sp.Pipeline(range(20)).map(failing)
        found = sp.verify(pipe, checks=["repeat", "workers"], workers=2, **FORK)
        assert found.ok, found.text
        assert found.failure == "ValueError: twelve"
        assert found.items == 12

    def test_what_cannot_travel_is_not_checked(self) -> None:
        lock = threading.Lock()

        def locked(x: int) -> int:
            with lock:
                return x

        found = sp.verify(
            sp.Pipeline(range(9)).map(locked), checks=["repeat", "process", "workers"]
        )
        assert outcomes(found)["process"] == "not checked"
        assert outcomes(found)["workers 1"] == "not checked"
        assert outcomes(found)["workers 0"] == "kept"
        assert found.ok

    def test_unordered_stages_are_compared_as_bags(self) -> None:
        pipe = sp.Pipeline(range(50)).map(planted.innocent, workers=2, ordered=False)
        found = sp.verify(pipe, checks=["executor"], workers=2, **FORK)
        assert set(outcomes(found).values()) == {"kept"}
        found = sp.verify(pipe, checks=["executor"], workers=2, items=10, **FORK)
        assert outcomes(found)["executor process"] == "not checked"

    def test_another_seed(self) -> None:
        pipe = sp.Pipeline(range(9), shuffle="global", seed=1).map(planted.drawn)
        found = sp.verify(pipe, seed=8, checks=["repeat", "once"])
        assert (found.ok, found.seed) == (True, 8)

    @pytest.mark.parametrize(
        "options", [{"items": 0}, {"epochs": 0}, {"workers": 1}, {"checks": ["all"]}]
    )
    def test_what_means_nothing_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(sp.GraphError):
            sp.verify(sp.Pipeline(range(3)), **options)

    def test_only_pipelines(self) -> None:
        with pytest.raises(sp.GraphError, match="range"):
            sp.verify(range(3))  # type: ignore[arg-type]
