"""Any sequence of what users do, against a model that is a list of dicts.

Writers append, overwrite, update, delete, add columns, commit, give up, die, meet a full disk and
try again; readers stay open through all of it. After every step, what a new reader finds is what
the model says, and what an old one finds is what it found before.

In the suite some dozens of such lives. Thousands, in a quarter of an hour:

    SPLITPIPE_SAFETY=long python -m pytest tests/safety/test_states.py
"""

from __future__ import annotations

import copy
import errno
import os
import pickle
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import FormatError, StorageError
from splitpipe.schema import Schema
from splitpipe.storage import DatasetWriter, check_dataset
from splitpipe.storage.compact import compact
from splitpipe.testing.faults import Strike, Tap, die_halfway, fail, run_in_child
from tests.safety.model import BARE, FIRST, VALUES, Model, Row, compare, value_of

LONG = os.environ.get("SPLITPIPE_SAFETY") == "long"


class Life(RuleBasedStateMachine):
    """Everything that may happen to a dataset."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.path = self.root / "ds"
        self.committed: Model | None = None
        self.working = Model([])
        self.writer: DatasetWriter | None = None
        self.readers: list[tuple[Dataset, Model]] = []
        self.keys = 0

    def teardown(self) -> None:
        if self.writer is not None:
            self.writer.abort()
        for ds, _ in self.readers:
            ds.close()
        shutil.rmtree(self.root)

    # -- writers ---------------------------------------------------------------------------

    @initialize(bare=st.booleans(), bins=st.integers(1, 3))
    def create(self, bare: bool, bins: int) -> None:
        self.start(bare, bins, {})

    def start(self, bare: bool, bins: int, options: dict[str, Any]) -> None:
        columns = [BARE] if bare else list(FIRST)
        schema = Schema("bytes" if bare else {name: VALUES[name][0] for name in columns})
        self.writer = DatasetWriter(self.path, schema, bins=bins, **options)
        self.working = Model(columns)
        if self.committed is None:
            # From here on it is a dataset of no records.
            self.committed = self.working.committed()

    @precondition(lambda self: self.writer is None)
    @rule(bins=st.none() | st.integers(1, 3))
    def append(self, bins: int | None) -> None:
        assert self.committed is not None
        self.writer = DatasetWriter(self.path, bins=bins, append=True)
        self.working = copy.deepcopy(self.committed)

    @precondition(lambda self: self.writer is None)
    @rule(bare=st.booleans(), bins=st.integers(1, 3))
    def overwrite(self, bare: bool, bins: int) -> None:
        self.start(bare, bins, {"overwrite": True})

    def fresh_key(self) -> str:
        self.keys += 1
        return f"key {self.keys}"

    def draw_row(self, data: st.DataObject, *, keyed: bool) -> Row:
        if self.working.bare:
            values: dict[str, Any] = {BARE: data.draw(st.binary(max_size=300))}
        else:
            values = {
                name: value_of(name, data.draw(st.none() | VALUES[name][1]))
                for name in self.working.columns
            }
        meta = data.draw(st.just({}) | st.just({"n": 1})) if keyed else {}
        return Row(values, self.fresh_key() if keyed else None, meta)

    def given(self, row: Row) -> Any:
        return row.values[BARE] if self.working.bare else dict(row.values)

    def take(self, row: Row) -> None:
        self.working.rows.append(row)
        if row.key is not None or row.meta:
            self.working.catalog = True

    @precondition(lambda self: self.writer is not None)
    @rule(data=st.data(), keyed=st.booleans())
    def write(self, data: st.DataObject, keyed: bool) -> None:
        assert self.writer is not None
        row = self.draw_row(data, keyed=keyed)
        self.writer.write(self.given(row), row.key, row.meta or None)
        self.take(row)

    @precondition(lambda self: self.writer is not None)
    @rule(data=st.data(), keyed=st.booleans(), count=st.sampled_from([0, 1, 5, 70, 150]))
    def write_many(self, data: st.DataObject, keyed: bool, count: int) -> None:
        assert self.writer is not None
        # Drawing so many would take longer than all else.
        some = [self.draw_row(data, keyed=keyed) for _ in range(min(3, count))]
        rows = [copy.deepcopy(some[at % 3]) for at in range(count)]
        for row in rows:
            row.key = self.fresh_key() if keyed else None
        records = [self.given(row) for row in rows]
        if keyed:
            self.writer.write_many(
                records, [row.key for row in rows], [row.meta or None for row in rows]
            )
        else:
            self.writer.write_many(records)
        for row in rows:
            self.take(row)

    @precondition(lambda self: self.writer is not None and self.working.catalog)
    @rule(data=st.data())
    def write_a_key_again(self, data: st.DataObject) -> None:
        assert self.writer is not None
        taken = [self.working.rows[at].key for at in self.working.live()]
        taken = [key for key in taken if key is not None]
        if taken:
            row = self.draw_row(data, keyed=False)
            with pytest.raises(FormatError):
                self.writer.write(self.given(row), data.draw(st.sampled_from(taken)))

    @precondition(lambda self: self.writer is not None and self.working.live())
    @rule(data=st.data(), by_key=st.booleans())
    def update(self, data: st.DataObject, by_key: bool) -> None:
        assert self.writer is not None
        at = data.draw(st.sampled_from(self.working.live()))
        row = self.working.rows[at]
        new = self.draw_row(data, keyed=False).values
        if not self.working.bare:
            chosen = data.draw(st.sets(st.sampled_from(self.working.columns), min_size=1))
            new = {name: new[name] for name in chosen}
        where = row.key if by_key and row.key is not None else at
        self.writer.update(where, new[BARE] if self.working.bare else new)
        row.values |= new

    @precondition(lambda self: self.writer is not None and self.working.live())
    @rule(data=st.data())
    def update_meta(self, data: st.DataObject) -> None:
        assert self.writer is not None
        at = data.draw(st.sampled_from(self.working.live()))
        meta = {"changed": data.draw(st.integers(0, 9))}
        self.writer.update(at, None, meta)
        self.working.rows[at].meta = meta
        self.working.catalog = True

    @precondition(lambda self: self.writer is not None and self.working.live())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        assert self.writer is not None
        gone = data.draw(st.sets(st.sampled_from(self.working.live()), min_size=1, max_size=5))
        self.writer.delete(sorted(gone))
        self.working.dead |= gone
        with pytest.raises(IndexError):
            self.writer.delete(min(gone))

    @precondition(lambda self: self.writer is not None and not self.working.bare)
    @rule(data=st.data())
    def add_column(self, data: st.DataObject) -> None:
        assert self.writer is not None
        left = [name for name in VALUES if name not in self.working.columns]
        if not left:
            return
        name = data.draw(st.sampled_from(left))
        self.writer.add_column(name, VALUES[name][0])
        self.working.columns.append(name)

    @precondition(lambda self: self.writer is not None and not self.working.bare)
    @rule(data=st.data())
    def update_column(self, data: st.DataObject) -> None:
        assert self.writer is not None
        with open_dataset(self.path) as ds:
            if ds.generation == 0:
                # See `test_a_column_that_is_replaced_before_the_first_commit`.
                return
        name = data.draw(st.sampled_from(self.working.columns))
        drawn = data.draw(st.lists(st.none() | VALUES[name][1], min_size=3, max_size=3))
        live = self.working.live()
        values = [value_of(name, drawn[at % 3]) for at in range(len(live))]
        self.writer.update_column(name, iter(values))
        for at, value in zip(live, values, strict=True):
            self.working.rows[at].values[name] = value

    @precondition(lambda self: self.writer is not None)
    @rule()
    def flush(self) -> None:
        assert self.writer is not None
        self.writer.flush()

    @precondition(lambda self: self.writer is not None)
    @rule(close=st.booleans())
    def commit(self, close: bool) -> None:
        assert self.writer is not None
        if close:
            self.writer.close()
            self.writer = None
        else:
            self.writer.commit()
        self.committed = self.working.committed()
        self.working = copy.deepcopy(self.committed)

    @precondition(lambda self: self.writer is not None)
    @rule(at=st.integers(1, 25), number=st.sampled_from([errno.ENOSPC, errno.EIO]))
    def commit_on_a_failing_disk(self, at: int, number: int) -> None:
        assert self.writer is not None
        after = self.working.committed()
        strike = Strike(at, fail(number), chosen=lambda call: call.changes)
        try:
            with Tap(self.path, strike):
                self.writer.commit()
        except StorageError:
            self.assert_one_of([self.committed, after])
            self.writer.commit()
        self.committed = after
        self.working = copy.deepcopy(after)

    @precondition(lambda self: self.writer is not None)
    @rule()
    def abort(self) -> None:
        assert self.writer is not None
        self.writer.abort()
        self.writer = None
        if not self.path.exists():
            # Its own writer made it and gave it up.
            assert self.committed is not None
            assert not self.committed.rows
            for ds, _ in self.readers:
                ds.close()
            self.readers.clear()
            self.start(self.committed.bare, 2, {})

    # -- death -----------------------------------------------------------------------------

    @precondition(lambda self: self.writer is None)
    @rule(data=st.data(), at=st.integers(1, 60), steps=st.integers(1, 4))
    def die(self, data: st.DataObject, at: int, steps: int) -> None:
        """A whole session in a child that is killed somewhere, or not."""
        before = self.committed
        acts: list[Callable[[], None]] = []
        before_keys = self.keys
        # What the child will do is drawn here, by doing it to the model alone.
        script = _Script(self, acts)
        self.working = copy.deepcopy(before) if before is not None else Model([])
        for _ in range(steps):
            script.draw(data)
        after = self.working.committed()

        def live() -> None:
            strike = Strike(at, die_halfway, chosen=lambda call: call.changes)
            with Tap(self.path, strike), DatasetWriter(self.path, append=True) as writer:
                script.writer = writer
                for act in acts:
                    act()

        run_in_child(live)
        self.committed = self.assert_one_of([before, after])
        self.keys = max(self.keys, before_keys)

    def assert_one_of(self, models: list[Model | None]) -> Model:
        """Which of these is found, exactly."""
        problems = []
        for model in models:
            assert model is not None
            try:
                with open_dataset(self.path) as ds:
                    compare(ds, model)
            except AssertionError as error:
                problems.append(error)
            else:
                return model
        raise problems[-1]

    @precondition(lambda self: self.writer is None)
    @rule()
    def compact(self) -> None:
        compact(self.path)

    # -- readers ---------------------------------------------------------------------------

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def open(self) -> None:
        assert self.committed is not None
        self.readers.append((open_dataset(self.path), self.committed))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def travel(self, data: st.DataObject) -> None:
        """A dataset goes to another process, and opens the same snapshot there."""
        ds, model = data.draw(st.sampled_from(self.readers))
        with pickle.loads(pickle.dumps(ds)) as again:
            compare(again, model)

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def close_a_reader(self, data: st.DataObject) -> None:
        ds, model = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        compare(ds, model)
        ds.close()

    # -- what is always true ---------------------------------------------------------------

    @invariant()
    def readers_keep_their_snapshots(self) -> None:
        for ds, model in self.readers:
            compare(ds, model)

    @invariant()
    def a_new_reader_finds_the_last_commit(self) -> None:
        if self.committed is not None:
            with open_dataset(self.path) as ds:
                compare(ds, self.committed)
            report = check_dataset(self.path)
            assert report.ok, report.findings


class _Script:
    """What a child will do: drawn beforehand, done to the model at once."""

    def __init__(self, life: Life, acts: list[Callable[[], None]]) -> None:
        self.life = life
        self.acts = acts
        self.writer: Any = None

    def draw(self, data: st.DataObject) -> None:
        life, model = self.life, self.life.working
        what = data.draw(st.sampled_from(["write", "update", "delete"]))
        if what == "write" or not model.live():
            row = life.draw_row(data, keyed=data.draw(st.booleans()))
            given = life.given(row)
            life.take(row)
            self.acts.append(lambda: self.writer.write(given, row.key, row.meta or None))
            return
        at = data.draw(st.sampled_from(model.live()))
        if what == "delete":
            model.dead.add(at)
            self.acts.append(lambda: self.writer.delete(at))
            return
        new = life.draw_row(data, keyed=False).values
        model.rows[at].values |= new
        self.acts.append(lambda: self.writer.update(at, new[BARE] if model.bare else new))


@pytest.mark.long
@pytest.mark.deadline(3600 if LONG else 60)
def test_any_life() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=2000 if LONG else 15,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
            # Making a failure small takes minutes: do it by hand, with the long run.
            phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate],
        ),
    )


def test_a_column_that_is_replaced_before_the_first_commit(tmp_path: Path) -> None:
    """The dataset of no records stays one, and a writer that dies here hinders nobody."""
    path = tmp_path / "ds"

    def replace_and_die() -> None:
        writer = DatasetWriter(path, {"number": "int64"})
        writer.write({"number": 1})
        writer.update_column("number", [2])
        os.kill(os.getpid(), signal.SIGKILL)

    assert run_in_child(replace_and_die) == signal.SIGKILL
    with open_dataset(path) as ds:
        assert len(ds) == 0
    with DatasetWriter(path, {"number": "int64"}) as writer:
        writer.write({"number": 3})
    with open_dataset(path) as ds:
        assert list(ds) == [{"number": 3}]
