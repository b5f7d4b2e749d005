"""The crash table, for workers: every place x every way, and exactly what the consumer sees.

The suite runs a part of the rows, every place and every way among them, with forked workers over
pipes; those of the rest that end are `long`. All rows for all start methods and transports take
about ten minutes:

    SPLITPIPE_FAULTS=long python -m pytest tests/faults

What is left behind is looked for after every row, as after any test (see ``tests/conftest.py``);
the time bound of a row is its deadline.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.testing.faults import Fault, FaultLog
from tests.faults.places import COUNT, PLACES, Place
from tests.faults.reading import reading
from tests.faults.table import DEATHS, ROWS, Row
from tests.runtime.comparing import read
from tests.sampling import sampled, seldom

LONG = os.environ.get("SPLITPIPE_FAULTS") == "long"
METHODS = ("fork", "forkserver", "spawn") if LONG else ("fork",)
TRANSPORTS = ("pipe", "zmq", "zmq+tcp") if LONG else ("pipe",)
NO_RESTARTS: dict[str, Any] = {"restarts": 0}

pytestmark = [
    pytest.mark.deadline(30),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def rows(*outcomes: str, every: int = 1) -> Any:
    """Rows of these outcomes; of `every` so many one is tried, and the others are `long`."""
    chosen = [row for row in ROWS if row.outcome in outcomes]
    if outcomes == ("waits",) and not LONG:  # each takes the half second that closing may take
        chosen = chosen[::5]  # four ways in turn: every place or so, every way
    often = chosen if LONG else chosen[::every]
    return pytest.mark.parametrize("row", seldom(chosen, keep=often), ids=str)


every_way = pytest.mark.parametrize(
    ("method", "transport"), [(method, way) for method in METHODS for way in TRANSPORTS]
)


@pytest.fixture
def log(tmp_path: Path) -> FaultLog:
    return FaultLog(tmp_path / "strikes")


def expected(place: Place) -> list[Any]:
    """What a run gives in which nothing happens."""
    if place.serial:
        return list(range(COUNT))  # inline nothing is restored
    pipe = place.build(Fault(when=never))
    with pipe.loader(executor="inline", epochs=place.epochs) as loader:
        return list(loader)


def never(item: object) -> bool:
    return False


def assert_as_the_row_says(row: Row, got: list[Any], error: BaseException | None) -> None:
    place = PLACES[row.where]
    assert row.error is not None
    assert type(error) is row.error, error
    assert row.says in str(error)
    told = "\n".join((str(error), *getattr(error, "__notes__", ())))
    # What is struck on its way is in no stage: its worker is named.
    assert f"stage {place.stage!r}" in told or (place.serial and f"of {place.stage})" in told)
    before = expected(place)[: place.before]
    assert got == (before if row.outcome == "told" else before[: len(got)])


@every_way
@rows("told", "died", every=3)  # of each place three or so; of the ways, each in turn
def test_what_ends_is_told(row: Row, log: FaultLog, method: str, transport: str) -> None:
    place = PLACES[row.where]
    # A cloudpickle is tried after a pickle that failed: both have to.
    fault = place.fault(how=row.how, times=None if place.serial else 1, log=log)
    loader = place.build(fault).loader(
        start_method=method, transport=transport, epochs=place.epochs, **NO_RESTARTS
    )
    got, error = read(loader)
    assert log.incidents()
    assert_as_the_row_says(row, got, error)


@rows("told")
def test_in_a_thread_and_in_one_process_it_is_the_same(row: Row, log: FaultLog) -> None:
    place = PLACES[row.where]
    if place.serial:
        return  # nothing is pickled there: nothing can be struck
    for executor in ("thread", "inline"):
        Path(log.path).unlink(missing_ok=True)
        fault = place.fault(how=row.how, log=log)
        got, error = read(place.build(fault).loader(executor=executor, epochs=place.epochs))
        assert len(log.incidents()) == 1
        if executor == "inline" and row.how == "sys.exit":
            assert type(error) is SystemExit  # it is the consumer's own process that is to end
            assert got == expected(place)[: place.before]
        else:
            assert_as_the_row_says(row, got, error)


@every_way
@rows("waits")
def test_what_does_not_end_is_waited_for_and_ends_with_the_loader(
    row: Row, log: FaultLog, method: str, transport: str
) -> None:
    place = PLACES[row.where]
    fault = place.fault(how=row.how, log=log)
    loader = place.build(fault).loader(
        start_method=method, transport=transport, epochs=place.epochs
    )
    with reading(loader) as reader:
        log.wait(1)
        assert reader.waits
    assert reader.got == expected(place)[: place.before][: len(reader.got)]
    assert reader.error is None or isinstance(reader.error, sp.SplitpipeError)


@rows("waits")
def test_what_does_not_end_is_told_when_its_deadline_is_over(row: Row, log: FaultLog) -> None:
    place = PLACES[row.where]
    options: dict[str, Any] = {"deadline_s": 0.5, "restarts": 0}
    fault = place.fault(how=row.how, log=log)
    loader = place.build(fault).loader(start_method="fork", epochs=place.epochs, **options)
    got, error = read(loader)
    assert len(log.incidents()) == 1
    assert got == expected(place)[: place.before][: len(got)]
    assert type(error) is sp.WorkerStalled
    assert place.stage in str(error)


@every_way
@rows("gone")
def test_what_happens_at_close_delays_nothing(
    row: Row, log: FaultLog, method: str, transport: str
) -> None:
    place = PLACES[row.where]
    pipe = place.build(place.fault(how=row.how, log=log))
    with pipe.loader(start_method=method, transport=transport) as loader:
        assert [next(loader) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(log.incidents()) == 1
    with pytest.raises(StopIteration):
        next(loader)


@every_way
@pytest.mark.parametrize(
    *sampled(
        2 if LONG else 1,
        where=[name for name, one in PLACES.items() if not one.after_close],
        how=DEATHS,
    )
)
def test_a_worker_that_died_once_is_replaced_and_nobody_sees_it(
    where: str, how: str, log: FaultLog, method: str, transport: str
) -> None:
    place = PLACES[where]
    fault = place.fault(how=how, times=1, log=log)
    loader = place.build(fault).loader(
        start_method=method, transport=transport, epochs=place.epochs
    )
    got, error = read(loader)
    assert error is None
    assert got == expected(place)
    assert len(log.incidents()) == 1


IMPORTED = """
from splitpipe.testing.faults import Fault, FaultLog, worker_index

if worker_index() is not None:
    Fault({how!r}, log=FaultLog({path!r}), times=None).strike()

def decode(x):
    return x
"""


class TestAtImport:
    """The module of a stage is imported where the stage runs, and that goes wrong."""

    @pytest.fixture
    def pipeline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        made: list[str] = []

        def make(how: str, log: FaultLog) -> sp.Pipeline:
            name = f"struck_at_import_{tmp_path.name}"
            (tmp_path / f"{name}.py").write_text(IMPORTED.format(how=how, path=log.path))
            monkeypatch.syspath_prepend(tmp_path)
            made.append(name)
            module = __import__(name)
            return sp.Pipeline(range(9)).map(module.decode, workers=2)

        yield make
        for name in made:
            __import__("sys").modules.pop(name, None)

    @pytest.mark.parametrize("method", METHODS[1:] if LONG else ("forkserver",))
    @pytest.mark.parametrize("how", ["raise", "sys.exit", *DEATHS])
    def test_is_told(self, pipeline: Any, log: FaultLog, how: str, method: str) -> None:
        got, error = read(pipeline(how, log).loader(start_method=method, **NO_RESTARTS))
        assert got == []
        assert log.incidents()
        if how in DEATHS:
            assert type(error) is sp.WorkerDied
            assert DEATHS[how] in str(error)
            return
        assert error is not None
        assert type(error).__name__ == ("InjectedFault" if how == "raise" else "StageFailed")
        assert "started" in "\n".join(error.__notes__)

    @pytest.mark.parametrize("method", METHODS[1:] if LONG else ("forkserver",))
    @pytest.mark.parametrize("how", ["stop", "wait", "hold"])
    def test_is_waited_for(self, pipeline: Any, log: FaultLog, how: str, method: str) -> None:
        with reading(pipeline(how, log).loader(start_method=method)) as reader:
            log.wait(2)
            assert reader.waits
        assert reader.got == []
