"""Datasets and modules for tests of iterations, and a model of what comes out."""

from __future__ import annotations

import random
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

import splitpipe as sp
from splitpipe.order import make_order
from splitpipe.server.iterations.columns import stack
from splitpipe.server.iterations.description import IterationSpec
from splitpipe.server.iterations.made import Broken, Ended, Made

MODULES = textwrap.dedent(
    '''
    """Modules of the tests."""

    from typing import Any

    from splitpipe.server.modules import categorizer, collater, filter, preprocessor


    @filter
    def not_every(sample: Any, *, n: int = 3) -> bool:
        """All but every n-th.

        Args:
            n: which ones go.
        """
        return sample["n"] % n != 0


    @filter
    class Fails:
        """Raises for some."""

        def __init__(self, n: int = 5, rest: int = 0) -> None:
            self.n, self.rest = n, rest

        def __call__(self, sample: Any) -> bool:
            if sample["n"] % self.n == self.rest:
                raise ValueError(f"bad sample {sample['n']}")
            return True


    @categorizer
    def remainder(sample: Any, *, n: int = 3) -> int:
        return sample["n"] % n


    @categorizer
    def words(sample: Any):
        return ("odd" if sample["n"] % 2 else "even", sample["n"] % 3 == 0)


    @collater
    def numbers(samples: Any, *, bad: int = -1) -> Any:
        made = [sample["n"] for sample in samples]
        if bad in made:
            raise RuntimeError(f"cannot collate {bad}")
        samples.clear()
        return made


    @preprocessor
    def doubled(batch: Any, *, by: int = 2) -> Any:
        if isinstance(batch, list):
            return [one * by for one in batch]
        return {**batch, "n": batch["n"] * by}
    '''
)


def whole(value: Any) -> list[Any]:
    """Encode nothing: the value itself is the one frame."""
    return [value]


def modules_in(folder: Path) -> Path:
    """Return a folder with the modules of the tests."""
    made = folder / "modules"
    made.mkdir(exist_ok=True)
    (made / "ours.py").write_text(MODULES, encoding="utf-8")
    return made


def dataset_in(folder: Path, count: int, bins: int = 4) -> Any:
    """Return a dataset of `count` records: a number, a text, a small array."""
    path = folder / f"data{count}"
    if not path.exists():
        fields = {"n": "int32", "text": "str", "x": sp.ndarray("float32", (3,))}
        with sp.DatasetWriter(path, fields, bins=bins) as writer:
            for n in range(count):
                writer.write({"n": n, "text": f"text {n}", "x": np.full(3, n, np.float32)})
    return sp.open_dataset(path)


def plain(value: Any) -> Any:
    """Return a value that can be compared: types and bytes of arrays included."""
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tolist())
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def told(event: Any) -> Any:
    """Return what comes of a stream as something that can be compared."""
    if isinstance(event, Made):
        frames = [plain(frame) for frame in event.frames]
        failures = [(one.stage, one.record, one.kind) for one in event.failures]
        return ("made", *event._replace(frames=frames, failures=failures))
    if isinstance(event, Ended):
        failures = [(one.stage, one.record, one.kind) for one in event.failures]
        return ("ended", *event._replace(failures=failures))
    assert isinstance(event, Broken)
    return ("broken", event.sequence, event.error.stage, event.error.record, event.error.kind)


class _Raised(Exception):
    """What the model does not go on behind."""


class Model:
    """An iteration in plain Python: one loop, nothing ahead, nothing clever."""

    def __init__(self, spec: IterationSpec, dataset: Any) -> None:
        self.spec = spec
        self.dataset = dataset
        self.events: list[Any] = []
        self.samples = 0
        self.filtered = 0
        self.failed = 0
        self.all_failed = 0
        self.failures: list[tuple[str, int, str]] = []

    def run(self) -> list[Any]:
        """Return what comes."""
        try:
            for epoch in range(self.spec.epochs):
                self._epoch(epoch)
        except _Raised as error:
            self.events.append(("broken", len(self.events), *error.args))
            return self.events
        counts = (self.samples, self.filtered, self.failed, self.failures)
        self.events.append(("ended", len(self.events), *counts))
        return self.events

    def _epoch(self, epoch: int) -> None:
        spec = self.spec
        order = make_order(self.dataset, spec.shuffle, seed=spec.seed, epoch=epoch)
        held: dict[Any, list[Any]] = {}
        for row in order.indices(0, len(order)).tolist():
            sample = self.dataset[row]
            verdict = self._filters(row, sample)
            if verdict is None:
                continue
            category = self._category(sample)
            group = held.setdefault(category, [])
            group.append((row, sample))
            if len(group) == max(1, spec.batch_size):
                self._finish(held.pop(category), category)
        for category, group in held.items():
            if spec.drop_last:
                self.filtered += len(group)
            else:
                self._finish(group, category)

    def _filters(self, row: int, sample: Any) -> bool | None:
        for ref in self.spec.filters:
            if ref.name == "not_every" and sample["n"] % ref.params.get("n", 3) == 0:
                self.filtered += 1
                return None
            if ref.name == "Fails":
                params = {"n": 5, "rest": 0, **ref.params}
                if sample["n"] % params["n"] == params["rest"]:
                    self._fail(1, ("Fails", row, "ValueError"))
                    return None
        return True

    def _category(self, sample: Any) -> Any:
        ref = self.spec.categorizer
        if ref is None:
            return None
        if ref.name == "remainder":
            return sample["n"] % ref.params.get("n", 3)
        return ("odd" if sample["n"] % 2 else "even", sample["n"] % 3 == 0)

    def _finish(self, group: list[Any], category: Any) -> None:
        spec = self.spec
        rows, samples = [row for row, _ in group], [sample for _, sample in group]
        if spec.collater is not None:
            value: Any = [sample["n"] for sample in samples]
            if spec.collater.params.get("bad", -1) in value:
                self._fail(len(rows), ("numbers", rows[0], "RuntimeError"))
                return
        else:
            value = samples[0] if spec.batch_size == 0 else stack(samples)
        for ref in spec.preprocessors:
            by = ref.params.get("by", 2)
            if isinstance(value, list):
                value = [one * by for one in value]
            else:
                value = {**value, "n": value["n"] * by}
        counts = (len(rows), self.filtered, self.failed, self.failures)
        made = ("made", len(self.events), [plain(value)], *counts, category)
        self.samples += len(rows)
        self.filtered, self.failed, self.failures = 0, 0, []
        self.events.append(made)

    def _fail(self, count: int, what: tuple[str, int, str]) -> None:
        if self.spec.on_error == "raise":
            raise _Raised(*what)
        self.failed += count
        self.all_failed += count
        self.failures.append(what)
        if self.spec.skip_budget is not None and self.all_failed > self.spec.skip_budget:
            raise _Raised("pipeline", -1, "BudgetExceeded")


def numbers(seed: int) -> random.Random:
    """Return chances of its own."""
    return random.Random(seed)
