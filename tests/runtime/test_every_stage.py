"""Every stage gives what it gives inline: for all executors, channels, payloads and cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from tests.runtime.comparing import all_frozen

ITEMS = 60


def record(number: int) -> dict[str, Any]:
    """Items of different length; the larger ones lie in shared memory."""
    length = (number * 7919) % 9 + 1
    return {
        "ids": np.arange(length) + number,
        "image": np.full((40, 40), number, np.float32),
        "name": f"n{number}",
        "number": number,
    }


def same(item: Any) -> Any:
    return item


def odd(item: dict[str, Any]) -> bool:
    return bool(item["number"] % 2)


def often(item: dict[str, Any], rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.7)


def noisy(item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {**item, "noise": rng.normal(size=3)}


def twice(item: dict[str, Any], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for part in range(int(rng.integers(3))):
        yield {**item, "part": part}


def pairs(items: Iterable[Any], gap: int) -> Iterator[Any]:
    before = None
    for item in items:
        if before is not None:
            yield before["number"], item["number"] + gap
        before = item


def drawn(items: Iterable[Any], rng: np.random.Generator) -> Iterator[Any]:
    for item in items:
        if rng.random() < 0.5:
            yield item


def matched(left: Iterable[Any], right: Iterable[Any]) -> Iterator[Any]:
    for one, other in zip(left, right, strict=True):
        yield one["number"], other["name"]


async def waited(item: dict[str, Any], rng: np.random.Generator) -> tuple[int, float]:
    return item["number"], float(rng.random())


def parity(item: dict[str, Any]) -> str:
    return "odd" if odd(item) else "even"


def number_of(item: dict[str, Any]) -> int:
    return int(item["number"])


Stage = Callable[[sp.Pipeline], sp.Pipeline]

STAGES: dict[str, Stage] = {
    "map": lambda p: p.map(number_of),
    "map with rng": lambda p: p.map(noisy),
    "filter": lambda p: p.filter(odd),
    "filter with rng": lambda p: p.filter(often).map(noisy),
    "flat_map": lambda p: p.flat_map(twice).map(noisy),
    "through": lambda p: p.through(pairs, gap=3),
    "through with rng": lambda p: p.through(drawn),
    "batch": lambda p: p.batch(7),
    "batch, padded": lambda p: p.batch(7, ragged="pad", drop_last=True),
    "batch, collated": lambda p: p.batch(4, collate=len),
    "unbatch": lambda p: p.batch(7).unbatch().map(noisy),
    "window": lambda p: p.window(4, 3),
    "shuffle": lambda p: p.shuffle(16),
    "bucket": lambda p: p.bucket(4, length="ids", boundaries=[3, 6], ragged="pad"),
    "bucket, learned": lambda p: p.bucket(4, length="ids", buckets=3, sample=20),
    "batch_by_cost": lambda p: p.batch_by_cost(20, length="ids", ragged="pad"),
    "pack": lambda p: p.map(lambda item: {"ids": item["ids"]}).pack(12, columns=["ids"], window=20),
    "async_map": lambda p: p.async_map(waited, concurrency=5),
    "cache": lambda p: p.map(noisy).cache().shuffle(9),
    "repeat": lambda p: p.repeat(2),
    "take": lambda p: p.take(11),
    "skip": lambda p: p.skip(11),
    "route": lambda p: p.route(
        parity, {"odd": lambda b: b.map(noisy), "even": lambda b: b.flat_map(twice)}
    ),
    "split_by and merge": lambda p: sp.merge(*p.split_by(parity, ["odd", "even"]).values()),
    "tee and zip": lambda p: sp.zip(*p.tee()),
    "tee and zip, named": lambda p: sp.zip({"x": p.map(number_of), "y": p.map(noisy)}),
    "mix": lambda p: sp.mix([p.map(noisy), p.map(number_of)], [1, 3]),
    "mix, evenly": lambda p: sp.mix([p, p.filter(odd)], method="even", stop="first"),
    "mix, stratified": lambda p: sp.mix([p, p.filter(odd)], [2, 1], method="stratified", batch=7),
    "mix, per stream": lambda p: sp.mix([p, p.filter(odd)], method="per-stream", batch=4),
    "interleave": lambda p: sp.interleave(p, p.filter(odd), block=3),
    "concat": lambda p: sp.concat(p.filter(odd), p.map(number_of)),
    "stage": lambda p: sp.stage(matched, p, p.map(noisy)),
}

FORK = {"start_method": "fork"}
"""How workers start is tried elsewhere; here they start quickly."""

Source = Callable[[], sp.Pipeline]


def sequence() -> sp.Pipeline:
    return sp.Pipeline(range(ITEMS), shuffle="global", seed=3)


def factory() -> sp.Pipeline:
    return sp.Pipeline(lambda: iter(range(ITEMS)), seed=3)


def cut(source: Source, stage: Stage, before: int | None, behind: int | None) -> sp.Pipeline:
    """The stage behind and before others that run somewhere."""
    pipe = stage(source().map(record, workers=before))
    return pipe if behind is None else pipe.map(same, workers=behind)


RUNS: dict[str, tuple[Source, int, dict[str, Any]]] = {
    "pipe": (sequence, 2, FORK),
    "factory": (factory, 2, FORK),
    "zmq, no arena": (sequence, 2, {"transport": "zmq", "arena_bytes": 0, **FORK}),
    "single": (sequence, 1, FORK),
    "threads": (sequence, 2, {"executor": "thread"}),
    "factory, threads": (factory, 2, {"executor": "thread"}),
}


def every_run() -> list[Any]:
    """Of every stage one run in processes, and of some in threads; the others are `long`."""
    kinds = list(RUNS)
    tried = {(name, kinds[number % 4]) for number, name in enumerate(STAGES)}
    tried |= {(name, kinds[4 + number % 2]) for number, name in enumerate(STAGES) if not number % 5}
    return [
        pytest.param(*both, marks=() if both in tried else pytest.mark.long)
        for both in product(STAGES, RUNS)
    ]


def read(loader: sp.Loader) -> list[Any]:
    with loader:
        return [all_frozen(epoch) for epoch in loader.by_epoch()]


@pytest.mark.deadline(120)
@pytest.mark.parametrize(("name", "run"), every_run())
def test_stage(name: str, run: str) -> None:
    stage = STAGES[name]
    source, workers, options = RUNS[run]
    truth = read(cut(source, stage, None, None).loader(executor="inline", epochs=2))
    assert len(truth) == 2
    assert sum(map(len, truth)) > 10
    assert read(cut(source, stage, workers, workers).loader(epochs=2, **options)) == truth


def test_shuffling_and_padding_are_measured_in_other_processes_too() -> None:
    pipe = sp.Pipeline(range(2000), shuffle="global", seed=1).map(record, workers=1)
    with pipe.shuffle(500).bucket(8, length="ids", buckets=4, collate=len).loader(**FORK) as loader:
        assert sum(loader) == 2000
        stages = {stage.name: stage for task in loader.stats() for stage in task.stages}
        assert loader.mixing()["source"] == pytest.approx(1, abs=0.1)
    assert stages["shuffle(500)"].mixing == pytest.approx(0.64, abs=0.1)  # a quarter of it
    waste = stages["bucket"].padding_waste
    assert waste is not None
    assert 0 < waste < 0.3
    assert stages["record"].mixing is None
