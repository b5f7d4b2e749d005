"""`Loader`: a running pipeline.

Responsible for: what a training loop holds: the iterator, its statistics, its end.

Rules:
- the items of `epochs` epochs come one after the other, in one stream; `by_epoch` cuts it where an
  epoch ends;
- after an error a loader is over: it raises `PipelineError` from then on, never a StopIteration
  that would look like the end of the data;
- everything it started ends with `close`, with the ``with`` block, when it is exhausted, when it
  is collected, or when the interpreter leaves.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any

from splitpipe.errors import PipelineError
from splitpipe.pipeline.builder import Pipeline, set_runner
from splitpipe.pipeline.explain import explain
from splitpipe.pipeline.plan import Plan, RunOptions
from splitpipe.recording.options import Record
from splitpipe.recording.recorder import Recorder
from splitpipe.runtime.diagnosis import Diagnosis
from splitpipe.runtime.run import Run
from splitpipe.runtime.seats import explain_seats
from splitpipe.runtime.statistics import TaskStatistics
from splitpipe.runtime.watching import Seen

__all__ = ["Loader"]


class Loader:
    """The items of a pipeline, made ahead of their use. Made by `Pipeline.loader`.

    Example:
        >>> import splitpipe as sp
        >>> with sp.Pipeline(range(6)).batch(2).loader(executor="inline") as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1], [2, 3], [4, 5]]
    """

    def __init__(
        self, pipeline: Pipeline, run: Run, number: int, recorder: Recorder | None = None
    ) -> None:
        self._failure: BaseException | None = None
        self._over = False
        self._quiet = False
        self._pipeline = pipeline
        self._run = run
        self._number = number
        self._recorder = recorder
        self._engine, self._output = run.engine(number)
        self._finalizer: Any = Finalize(self, run.release, args=(number,), exitpriority=100)
        epochs = run.options.epochs
        self._epochs = iter(count() if epochs is None else range(epochs))
        self._chunks: Iterator[Iterator[Any]] = iter(())
        self._chunk: Iterator[Any] = iter(())
        self._advance = self._chunk.__next__
        self.epoch = -1
        """The epoch of the last item; -1 before the first."""

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Any:
        try:
            return self._advance()
        except StopIteration:
            pass  # and go on outside of it: no error that follows has it as its context
        except BaseException as error:
            self._fail(error)
            raise
        return self._refill()

    def by_epoch(self) -> Iterator[Iterator[Any]]:
        """Yield an iterator over the items of each epoch that is left.

        An epoch that is not read to its end is left for the next one; what was made ahead is
        thrown away.

        Example:
            >>> import splitpipe as sp
            >>> with sp.Pipeline(range(2)).loader(executor="inline", epochs=2) as loader:
            ...     [list(items) for items in loader.by_epoch()]
            [[0, 1], [0, 1]]
        """
        while self._next_epoch():
            epoch = self.epoch
            yield self._one_epoch(epoch)
            if self.epoch == epoch:
                self._leave_epoch()

    def stats(self) -> tuple[TaskStatistics, ...]:
        """Return what every task did so far; the consumer's own process comes last."""
        consumer = self._run.consumer(self._number)
        tasks = self._run.observer.statistics(consumer)
        return self._run.ranks.added(tasks, consumer, max(0, self.epoch))

    def doctor(self, since: Sequence[TaskStatistics] | None = None) -> Diagnosis:
        """Return what holds the pipeline back, what to do about it, and what that would gain.

        Args:
            since: what `stats` said at an earlier moment; None for when the first item came. Only
                the latter counts the time before that item, too.

        Example:
            >>> import splitpipe as sp
            >>> with sp.Pipeline(range(6)).loader(executor="inline") as loader:
            ...     items = list(loader)
            >>> loader.doctor().kind
            'inline'
        """
        return self._run.observer.doctor(self._run.consumer(self._number), earlier=since)

    def mixing(self) -> dict[str, float]:
        """Return how well each source is shuffled in this epoch, from 0 (its order is kept) to 1
        (as good as uniform); `StageStatistics.mixing` says it of `shuffle` stages.

        It is taken from the order itself, at places that are spread over the epoch. Method and
        source: `splitpipe.pipeline.stages.mixing`.

        Example:
            >>> import splitpipe as sp
            >>> pipe = sp.Pipeline(range(100_000), shuffle="global", seed=1)
            >>> with pipe.loader(executor="inline") as loader:
            ...     _ = next(loader)
            ...     {name: round(number, 1) for name, number in loader.mixing().items()}
            {'source': 1.0}
        """
        return self._run.mixing(max(0, self.epoch))

    def explain(self) -> str:
        """Return the plan in words."""
        return tell(self._run.plan, self._run.options)

    def close(self) -> None:
        """End the run: within half a second no process, descriptor or memory of it is left.

        Arrays that were delivered stay valid. Safe to call twice.
        """
        if not self._over:
            self._over = True
            self._stop()

    def leave_quietly(self) -> None:
        """Say that collecting this loader is a usual way to end it, not worth a ResourceWarning."""
        self._quiet = True

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True) and self._run.processes and not self._quiet:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        state = "failed" if self._failure else "over" if self._over else f"epoch {self.epoch}"
        return f"Loader({self._pipeline!r}; {self._run.options.executor}, {state})"

    def _next_epoch(self) -> bool:
        self._check()
        if self._over:
            return False
        epoch = next(self._epochs, None)
        if epoch is None:
            self.close()
            return False
        self.epoch = epoch
        last = epoch + 1 == self._run.options.epochs
        self._chunks = self._engine.epoch(epoch, last=last, output=self._output)
        if self._recorder is not None:
            self._chunks = self._recorder.epoch(epoch, self._chunks, _Seeing(self))
        return True

    def _next_chunk(self) -> bool:
        """Go on to the next message of the epoch; False at the end of it."""
        try:
            chunk = next(self._chunks, None)
        except BaseException as error:
            self._fail(error)
            raise
        if chunk is None:
            return False
        self._chunk = chunk
        self._advance = chunk.__next__
        return True

    def _refill(self) -> Any:
        """Return the next item when the current message has no more."""
        while True:
            if not self._next_chunk():
                if not self._next_epoch():
                    raise StopIteration
                continue
            try:
                return self._advance()
            except StopIteration:
                continue
            except BaseException as error:
                self._fail(error)
                raise

    def _one_epoch(self, epoch: int) -> Iterator[Any]:
        self._check()
        while self.epoch == epoch and self._next_chunk():
            while True:
                try:
                    item = self._advance()
                except StopIteration:
                    break
                except BaseException as error:
                    self._fail(error)
                    raise
                yield item
                del item

    def _leave_epoch(self) -> None:
        """Drop the rest of an epoch that was not read to its end."""
        self._drop()
        self._engine.leave(self.epoch, last=self.epoch + 1 == self._run.options.epochs)

    def _drop(self) -> None:
        """Close what yields items, so that generators of stages that run here end now."""
        for layer in (self._chunk, self._chunks):
            close = getattr(layer, "close", None)
            if close is not None:
                close()
        self._chunk, self._chunks = iter(()), iter(())

    def _check(self) -> None:
        if self._failure is not None:
            raise PipelineError(
                f"this loader ended with {type(self._failure).__name__}: {self._failure}; "
                "make a new one"
            ) from self._failure

    def _fail(self, error: BaseException) -> None:
        """Be over, because of `error`, or because of what ended the run for another output."""
        reason = self._run.fail(error)
        self._failure = reason
        if self._recorder is not None:
            self._recorder.failed(reason)
        self._advance = self._refuse
        self.close()
        if reason is not error:
            raise reason

    def _refuse(self) -> Any:
        self._check()
        raise StopIteration

    def _stop(self) -> None:
        if self._failure is None:
            self._advance = iter(()).__next__
        self._finalizer()
        self._drop()
        if self._recorder is not None:
            self._recorder.close()


class _Seeing:
    """What a recorder may ask of a loader, which it does not keep alive."""

    def __init__(self, loader: Loader) -> None:
        self._engine = loader._engine
        self._loader = weakref.ref(loader)

    def seen(self) -> Seen | None:
        return self._engine.seen

    def state(self) -> dict[str, Any] | None:
        loader = self._loader()
        ask = getattr(loader, "state_dict", None)
        return None if ask is None else ask()

    def tasks(self) -> list[dict[str, Any]]:
        loader = self._loader()
        return [] if loader is None else [_brief(task) for task in loader.stats()]


def _brief(task: TaskStatistics) -> dict[str, Any]:
    """What a recording tells of a task, now and then: where its time has gone so far."""
    stages = {one.name: round(one.busy_s, 3) for one in task.stages if one.share is not None}
    return {
        "name": task.name,
        "workers": task.workers,
        "items_out": task.items_out,
        "busy_s": round(task.busy_s, 3),
        "stages_s": stages,
    }


def start(outputs: Mapping[str, Pipeline], options: RunOptions) -> dict[str, Loader]:
    """Start one run that makes all `outputs`."""
    run = Run({name: pipeline.node for name, pipeline in outputs.items()}, options)
    try:
        recorders = [
            _recorder(name, pipeline, run, number)
            for number, (name, pipeline) in enumerate(outputs.items())
        ]
    except BaseException:
        for number in range(len(outputs)):
            run.release(number)
        raise
    return {
        name: Loader(pipeline, run, number, recorders[number])
        for number, (name, pipeline) in enumerate(outputs.items())
    }


def _recorder(name: str, pipeline: Pipeline, run: Run, number: int) -> Recorder | None:
    options = run.options
    if options.record is None:
        return None
    told = {"executor": options.executor, "transport": options.transport, "epochs": options.epochs}
    record = Record.of(options.record, name)
    return Recorder(record, pipeline, options=told, plan=run.plan, output=number)


def tell(plan: Plan, options: RunOptions) -> str:
    """Return a plan in words, and what its workers share of this machine."""
    return "\n".join(filter(None, (explain(plan, options), explain_seats(plan))))


set_runner(start, tell)
