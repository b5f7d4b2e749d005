"""Iterations: the batches of a description are those of a plain loop, wherever they are begun."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitpipe.server.iterations.description import IterationSpec, ModuleRef
from splitpipe.server.iterations.made import Broken, Ended, Made
from splitpipe.server.iterations.stream import BatchStream
from splitpipe.server.iterations.streams import count, stream_of
from tests.server.iterations.making import Model, dataset_in, modules_in, told, whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("iterations")


@pytest.fixture(scope="module")
def modules(folder: Path) -> Path:
    return modules_in(folder)


def read(stream: BatchStream) -> Iterator[Any]:
    """Yield what comes, to the end."""
    with stream:
        for event in stream:
            yield event
            if isinstance(event, Broken):
                assert next(stream) == event  # and again
                return


def batches(spec: IterationSpec, dataset: Any, modules: Path, **more: Any) -> list[Any]:
    stream = stream_of(spec, dataset, modules, encode=whole, **more)
    return [told(event) for event in read(stream)]


def ref(name: str, **params: Any) -> ModuleRef:
    return ModuleRef(name=name, params=params)


@st.composite
def specs(draw: st.DrawFn) -> IterationSpec:
    size = draw(st.integers(0, 7))
    fails = st.builds(lambda n, rest: ref("Fails", n=n, rest=rest), st.integers(4, 30), st.just(3))
    filters = st.lists(
        st.one_of(st.builds(lambda n: ref("not_every", n=n), st.integers(1, 5)), fails), max_size=2
    )
    categorizers = st.sampled_from([None, ref("remainder", n=4), ref("words")])
    collaters = st.sampled_from([None, ref("numbers"), ref("numbers", bad=7)])
    skips = draw(st.booleans())
    return IterationSpec(
        dataset="numbers",
        batch_size=size,
        shuffle=draw(st.sampled_from([None, "global", "binwise"])),
        seed=draw(st.integers(0, 5)),
        epochs=draw(st.integers(1, 3)),
        drop_last=draw(st.booleans()),
        filters=draw(filters),
        categorizer=draw(categorizers) if size else None,
        collater=draw(collaters) if size else None,
        preprocessors=draw(st.lists(st.builds(ref, st.just("doubled")), max_size=2)),
        on_error="skip" if skips else "raise",
        skip_budget=draw(st.sampled_from([None, 0, 5])) if skips else None,
    )


class TestEverything:
    """Random descriptions against the model."""

    @pytest.mark.deadline(300)
    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(spec=specs(), size=st.sampled_from([0, 1, 5, 23, 40]))
    def test_is_what_a_plain_loop_makes(
        self, folder: Path, modules: Path, spec: IterationSpec, size: int
    ) -> None:
        dataset = dataset_in(folder, size)
        wanted = Model(spec, dataset).run()
        made = batches(spec, dataset, modules)
        assert made == wanted
        assert batches(spec, dataset, modules, remote=True) == wanted
        if made[-1][0] == "ended":
            assert accounted(made) == size * spec.epochs
            known = count(spec, dataset)
            assert known is None or known == len(made) - 1

    @pytest.mark.deadline(300)
    @settings(max_examples=20, suppress_health_check=list(HealthCheck))
    @given(spec=specs(), size=st.sampled_from([5, 23, 40]), data=st.data())
    def test_goes_on_at_any_batch(
        self, folder: Path, modules: Path, spec: IterationSpec, size: int, data: st.DataObject
    ) -> None:
        dataset = dataset_in(folder, size)
        wanted = Model(spec, dataset).run()
        _, checkpoints = with_checkpoints(spec, dataset, modules)
        for start in range(len(wanted) - (wanted[-1][0] == "broken")):
            at = data.draw(st.integers(0, min(start, len(checkpoints) - 1)))
            more = {"checkpoint": checkpoints[at]} if checkpoints else {}
            assert batches(spec, dataset, modules, start=start, **more) == wanted[start:]

    @pytest.mark.deadline(120)
    @pytest.mark.parametrize(
        ("workers", "given"),
        [
            (1, {"batch_size": 0, "preprocessors": [ref("doubled")]}),
            (1, {"batch_size": 4, "filters": [ref("Fails", n=11, rest=5)]}),
            (1, {"batch_size": 4, "filters": [ref("not_every")], "epochs": 2}),
            pytest.param(2, {"batch_size": 4}, marks=pytest.mark.long),
            (2, {"batch_size": 3, "categorizer": ref("words"), "preprocessors": [ref("doubled")]}),
            pytest.param(
                2,
                {
                    "batch_size": 3,
                    "filters": [ref("Fails", n=11, rest=5), ref("not_every", n=4)],
                    "categorizer": ref("remainder", n=5),
                    "collater": ref("numbers", bad=7),
                    "on_error": "skip",
                    "epochs": 2,
                },
                marks=pytest.mark.long,
            ),
        ],
        ids=["bare", "raise", "filter", "plain", "category", "skip"],
    )
    def test_is_the_same_for_any_workers(
        self, folder: Path, modules: Path, given: Mapping[str, Any], workers: int
    ) -> None:
        dataset = dataset_in(folder, 40)
        spec = IterationSpec(dataset="numbers", shuffle="global", workers=workers, **given)
        wanted = Model(spec, dataset).run()
        made, checkpoints = with_checkpoints(spec, dataset, modules)
        assert made == wanted
        start = len(checkpoints) // 2
        # A state fits any number of workers.
        alone = spec.model_copy(update={"workers": 0})
        made = batches(alone, dataset, modules, start=start, checkpoint=checkpoints[start])
        assert made == wanted[start:]
        _, checkpoints = with_checkpoints(alone, dataset, modules)
        made = batches(spec, dataset, modules, start=start, checkpoint=checkpoints[start])
        assert made == wanted[start:]


def accounted(events: list[Any]) -> int:
    """Return how many records are known to have become something, of a stream that has ended."""
    made = sum(sum(event[3:6]) for event in events if event[0] == "made")
    _, number, samples, filtered, failed, _ = events[-1]
    assert number == len(events) - 1
    assert samples == sum(event[3] for event in events if event[0] == "made")
    return made + int(filtered) + int(failed)


def with_checkpoints(spec: IterationSpec, dataset: Any, modules: Path) -> tuple[Any, list[Any]]:
    """Return what comes, and the checkpoint before each batch."""
    events, made = [], []
    stream = stream_of(spec, dataset, modules, encode=whole)
    made.append(json.loads(json.dumps(stream.checkpoint())))
    for event in read(stream):
        events.append(told(event))
        if isinstance(event, Made):
            checkpoint = json.loads(json.dumps(stream.checkpoint()))
            assert checkpoint["sequence"] == event.sequence + 1
            made.append(checkpoint)
        else:
            assert stream.checkpoint() is None
            if isinstance(event, Ended):
                assert event.batches == len(made) - 1
    return events, made


class TestStatistics:
    def test_say_who_waits_for_whom(self, folder: Path, modules: Path) -> None:
        spec = IterationSpec(dataset="numbers", filters=[ref("not_every")])
        with stream_of(spec, dataset_in(folder, 40), modules, encode=whole) as stream:
            made = [next(stream) for _ in range(5)]
            told = json.loads(json.dumps(stream.stats()))
        (task,) = told["stages"]
        assert (task["workers"], task["items"]) == (0, len(made))
        assert task["busy"] + task["waiting_out"] == pytest.approx(1.0)
        assert [stage["name"] for stage in task["stages"]][1:] == ["examine", "assemble", "finish"]
        assert told["doctor"].startswith(("Batches were made", "The iteration's own process"))


def test_what_waits_for_its_category_is_bounded(folder: Path, modules: Path) -> None:
    dataset = dataset_in(folder, 40)
    many = {"dataset": "numbers", "batch_size": 30, "categorizer": ref("remainder", n=20)}
    spec = IterationSpec(**many, waiting_nbytes=150)
    last = list(read(stream_of(spec, dataset, modules, encode=whole)))[-1]
    assert isinstance(last, Broken)
    assert "categories wait for their batches to be full" in str(last.error)
    assert "raise waiting_nbytes" in str(last.error)
    enough = batches(IterationSpec(**many), dataset, modules)
    assert enough == Model(IterationSpec(**many), dataset).run()
