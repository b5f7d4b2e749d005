"""The doctor on made-up statistics: every kind, its evidence, and what the model expects."""

from __future__ import annotations

from typing import Any

import pytest

from splitpipe.runtime.doctor import Diagnosis, Observation, diagnose
from splitpipe.runtime.statistics import StageStatistics, TaskStatistics

SECONDS = 10.0


def task(name: str = "work", workers: int = 1, **changes: Any) -> TaskStatistics:
    """A task that ran ten seconds; `busy` is the share of them that it worked."""
    busy = changes.pop("busy", 1.0)
    running = workers * SECONDS
    values: dict[str, Any] = {
        "items_in": 1000,
        "items_out": 1000,
        "dropped": 0,
        "running_s": running,
        "wait_input_s": 0.0,
        "wait_output_s": (1 - busy) * running,
        "nbytes": 1_000_000,
        "messages": 1000,
        "elapsed_s": SECONDS,
        "cpu_s": busy * running,
        "start_s": 0.1,
    }
    return TaskStatistics(name, workers, **{**values, **changes})


def loop(waits: float, name: str = "consumer", **changes: Any) -> TaskStatistics:
    """A consumer that waits this share of the time for items."""
    values: dict[str, Any] = {
        "executor": "consumer",
        "running_s": SECONDS,
        "wait_input_s": waits * SECONDS,
        "wait_output_s": 0.0,
        "cpu_s": (1 - waits) * SECONDS,
        "nbytes": 0,
        "messages": 0,
    }
    return task(name, 0, **{**values, **changes})


def stages(**shares: float) -> tuple[StageStatistics, ...]:
    return tuple(StageStatistics(name, share * SECONDS, share) for name, share in shares.items())


def seen(*tasks: TaskStatistics, **facts: Any) -> Diagnosis:
    return diagnose(Observation(tasks, **{"elapsed_s": SECONDS, "cpus": 16.0, **facts}))


class TestKinds:
    def test_consumer(self) -> None:
        found = seen(task("decode", 2, busy=0.25), loop(0.02))
        assert (found.kind, found.stage) == ("consumer", "consumer")
        assert found.gain == pytest.approx(4.0)
        assert "98%" in found.text
        assert "fewer workers" in found.text

    def test_consumer_with_stages_of_its_own(self) -> None:
        found = seen(task("decode", busy=0.5), loop(0.0, name="augment"))
        assert (found.kind, found.stage) == ("consumer", "augment")
        assert "workers=1" in found.advice

    def test_slow_stage_that_may_have_workers(self) -> None:
        fused = task("read > decode", divisible=True, stages=stages(read=0.1, decode=0.85))
        found = seen(fused, loop(0.75))
        assert (found.kind, found.stage, found.workers) == ("workers", "decode", 4)
        assert found.gain == pytest.approx(4.0)
        assert "workers=4" in found.text
        assert "85% of it in 'decode'" in found.text
        assert "limits then is the loop" in found.text

    def test_workers_as_far_as_there_are_cpus(self) -> None:
        found = seen(task("decode", divisible=True), loop(0.9, cpu_s=0.0), cpus=3.0)
        assert (found.kind, found.workers) == ("workers", 3)
        assert found.gain == pytest.approx(3.0)

    def test_work_off_the_cpu_takes_none(self) -> None:
        found = seen(task("fetch", divisible=True, cpu_s=0.1), loop(0.9, cpu_s=0.0), cpus=2.0)
        assert (found.kind, found.workers) == ("workers", 10)

    def test_slow_stage_among_others_in_order(self) -> None:
        fused = task("pack > tag", stages=stages(pack=0.6, tag=0.4))
        found = seen(fused, loop(0.9))
        assert (found.kind, found.stage, found.workers) == ("stage", "pack", 1)
        assert found.gain == pytest.approx(1 / 0.6)

    def test_slow_stage_alone_in_order(self) -> None:
        found = seen(task("pack", stages=stages(pack=0.98)), loop(0.9))
        assert (found.kind, found.stage) == ("stage", "pack")
        assert found.gain == pytest.approx(1 / (1 - 0.98 / 2))

    def test_source(self) -> None:
        found = seen(task("source > f", stages=stages(source=0.8, f=0.2), cpu_s=1.0), loop(0.9))
        assert (found.kind, found.stage) == ("source", "source")

    def test_source_that_several_can_read(self) -> None:
        reading = task("read > f", stages=stages(read=0.8, f=0.2), cpu_s=1.0, divisible=True)
        found = seen(reading, loop(0.8))
        assert (found.kind, found.stage, found.workers) == ("source", "read", 5)

    def test_waits_for_memory(self) -> None:
        held = task("batch", busy=0.5, wait_memory_s=5.0, arena_slots=1, arena_nbytes=10_000_000)
        found = seen(held, loop(0.5))
        assert (found.kind, found.stage) == ("memory", "batch")
        assert found.gain == pytest.approx(2.0)
        assert "arena_bytes" in found.advice

    def test_nothing_fits_into_the_arena(self) -> None:
        found = seen(task("batch", busy=0.5, arena_refused=900), loop(0.5))
        assert (found.kind, found.stage) == ("memory", "batch")
        assert "900 times" in found.text

    def test_kept_batches(self) -> None:
        sent = task("batch", busy=0.3, nbytes=40_000_000_000)
        found = seen(sent, loop(0.0, copies=990, reads=(0,)), copied_nbytes_s=8e9)
        assert (found.kind, found.stage) == ("memory", "consumer")
        assert found.gain == pytest.approx(1 / (1 - 0.495), rel=0.01)

    def test_bytes_as_fast_as_memory(self) -> None:
        found = seen(task("grow", nbytes=60_000_000_000), loop(0.7), copied_nbytes_s=10e9)
        assert (found.kind, found.stage) == ("memory", "grow")
        assert found.gain == pytest.approx(2.0)
        assert "dtype" in found.advice

    def test_startup(self) -> None:
        found = seen(task(busy=0.5), loop(0.4), startup_s=30.0)
        assert found.kind == "start-up"
        assert found.gain == pytest.approx(4.0)
        assert "30.0 s" in found.text
        assert "epochs" in found.advice

    def test_too_little_work(self) -> None:
        tiny = task("f", stages=stages(f=0.2), items_out=5_000_000)
        found = seen(tiny, loop(0.8))
        assert (found.kind, found.stage) == ("small", "f")
        assert found.gain == pytest.approx(1 / 0.4)
        assert "2.0 µs" in found.text

    def test_more_workers_than_cpus(self) -> None:
        found = seen(task("f", 8, cpu_s=19.0, divisible=True), loop(0.9, cpu_s=0.5), cpus=2.0)
        assert (found.kind, found.stage, found.workers, found.gain) == ("cpus", "f", 1, 1.0)
        assert "8 workers wanted 8.0 at a time" in found.text

    def test_all_cpus_in_use(self) -> None:
        used = task("f > g", 2, divisible=True, stages=stages(f=0.3, g=0.7))
        found = seen(used, loop(0.95), cpus=2.0, idle_cpus=0.0)
        assert (found.kind, found.stage) == ("cpus", "g")

    def test_cpus_that_others_use(self) -> None:
        found = seen(task("f", 2, divisible=True), loop(0.95), cpus=4.0, idle_cpus=0.01)
        assert found.kind == "cpus"
        assert "other programs" in found.text

    def test_workers_that_get_no_cpu(self) -> None:
        waiting = task("f", 2, busy=0.4, cpu_s=3.0, starved_s=10.0, divisible=True)
        found = seen(waiting, loop(0.9), cpus=16.0, idle_cpus=0.0)
        assert (found.kind, found.stage) == ("cpus", "f")
        assert "50% of the time" in found.text

    def test_window(self) -> None:
        found = seen(task("f", 4, busy=0.4), loop(0.5))
        assert (found.kind, found.stage) == ("window", "f")
        assert found.gain == pytest.approx(2.0)

    def test_inline(self) -> None:
        assert seen(loop(0.0)).kind == "inline"

    def test_before_the_first_item(self) -> None:
        nothing = loop(1.0, items_in=0, items_out=0)
        assert "have not begun" in seen(task(start_s=None), nothing).text
        assert "are at work" in seen(task(), nothing).text


@pytest.mark.parametrize("busy", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("waits", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("cpus", [0.5, 2.0, 64.0])
def test_always_says_one_paragraph(busy: float, waits: float, cpus: float) -> None:
    found = seen(task(busy=busy), task("next", 3, busy=busy / 2), loop(waits), cpus=cpus)
    assert str(found) == found.text
    assert "\n" not in found.text
    assert found.text[0].isupper()
    assert found.text.endswith(".")
    assert found.gain is None or 0.9 < found.gain <= 1000


def test_an_interval_of_nothing_is_no_error() -> None:
    nothing = [
        task(running_s=0.0, wait_output_s=0.0, cpu_s=0.0, items_out=0, messages=0, nbytes=0),
        loop(0.0, running_s=0.0, cpu_s=0.0, items_in=0),
    ]
    assert seen(*nothing, elapsed_s=0.0).kind == "unknown"
