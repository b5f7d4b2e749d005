"""`Loader`: a running pipeline.

Responsible for: what a training loop holds: the iterator, its statistics, its end.

Rules:
- the items of `epochs` epochs come one after the other, in one stream; `by_epoch` cuts it where an
  epoch ends;
- after an error a loader is over: it raises `PipelineError` from then on, never a StopIteration
  that would look like the end of the data;
- what it gives next can be said at any time (`Loader.state_dict`), and be gone on with anywhere:
  the items are the same for any workers, executor and channel;
- everything it started ends with `close`, with the ``with`` block, when it is exhausted, when it
  is collected, or when the interpreter leaves.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import count, islice
from multiprocessing.util import Finalize
from types import TracebackType
from typing import TYPE_CHECKING, Any

from splitpipe.errors import PipelineError
from splitpipe.interrupts import held_back
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.stage import check_count
from splitpipe.pipeline.stages.failed import FailedItem
from splitpipe.recording.recorder import Recorder
from splitpipe.recording.seeing import Seeing
from splitpipe.runtime.diagnosis import Diagnosis
from splitpipe.runtime.run import Run
from splitpipe.runtime.saved import Place
from splitpipe.runtime.seats import tell
from splitpipe.runtime.statistics import TaskStatistics

if TYPE_CHECKING:
    from splitpipe.integrations.torch import TorchLoader

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
        self,
        pipeline: Pipeline,
        run: Run,
        number: int,
        recorder: Recorder | None = None,
        begins: Place = Place(),  # noqa: B008  a frozen value
        *,
        sought: bool = False,
    ) -> None:
        self._quiet = False
        self._pipeline = pipeline
        self._number = number
        self._recorder = recorder
        self._left_out: list[tuple[int, int, int]] = []  # epoch, and which of its items
        self.epoch = -1
        """The epoch of the last item; -1 before the first."""
        self._attach(run, begins, sought=sought)

    def _attach(self, run: Run, begins: Place, *, sought: bool = False) -> None:
        """Read `run` from now on; `begins` is where, and `sought` whether nobody knows that there
        is such an item.
        """
        self._sought = sought
        self._failure: BaseException | None = None
        self._over = False
        self._run = run
        self._engine, self._output = run.engine(self._number)
        self._finalizer: Any = Finalize(self, run.release, args=(self._number,), exitpriority=100)
        first, epochs = run.plan.whole.epoch, run.options.epochs
        self._epochs = iter(count(first) if epochs is None else range(first, epochs))
        self._chunks: Iterator[Iterator[Any]] = iter(())
        self._chunk: Iterator[Any] = iter(())
        self._limited: Iterator[Any] = iter(())
        self._advance = self._chunk.__next__
        if begins.items:
            self._engine.want(begins.epoch, self._output, begins.items)
        self._begins = begins
        self._place: Place | None = begins  # None: it is in the middle of an epoch
        run.tell_replay()

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

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is, in values of JSON: what `load_state_dict`, and ``state=`` of
        `Pipeline.loader`, go on from with exactly the items that would have come next.

        A few kB, at any time between two items, for next to no cost. It holds positions, no items.
        Workers, executor, channel and prefetching may be others when it is used; the functions of
        stages may have been mended meanwhile, the graph may not have changed.

        Raises:
            ResumeError: a stage is run with ``ordered=False``.

        Example:
            >>> import splitpipe as sp
            >>> pipe = sp.Pipeline(range(10), shuffle="global", seed=1).batch(3, collate=list)
            >>> with pipe.loader(executor="inline") as loader:
            ...     _, state, rest = next(loader), loader.state_dict(), list(loader)
            >>> with pipe.loader(executor="inline", state=state) as loader:
            ...     list(loader) == rest
            True
        """
        place = self._where()
        state = self._run.state(self._number, place)
        return {**state, "sought": True} if self._sought and place == self._begins else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` has returned, of this graph: in a new run, which
        ends the one that there is. Other loaders of that run are not touched.

        Raises:
            ResumeError: the state does not fit; it names the stage or source that changed.
        """
        (place,) = self._run.places({"": state}).values()
        self._restart(place, state)

    def seek(self, step: int, *, epoch: int | None = None) -> None:
        """Let item `step` of an epoch be the next: of the one that it is in, unless `epoch` says
        another one.

        Costs what resuming there costs.

        Example:
            >>> import splitpipe as sp
            >>> with sp.Pipeline(range(1 << 40)).loader(executor="inline") as loader:
            ...     loader.seek(10**9)
            ...     next(loader)
            1000000000
        """
        check_count("step", step, least=0)
        check_count("epoch", epoch, least=0)
        self._restart(Place(self._where().epoch if epoch is None else epoch, step))

    def skip_steps(self, start: int, stop: int) -> None:
        """Leave out the items ``start:stop`` of the epoch that it is in, as after a spike of the
        loss. They count as given: what comes behind keeps its number.

        Costs what resuming at `stop` costs, when `start` is reached.

        Example:
            >>> import splitpipe as sp
            >>> with sp.Pipeline(range(9)).loader(executor="inline") as loader:
            ...     loader.skip_steps(2, 7)
            ...     list(loader)
            [0, 1, 7, 8]
        """
        check_count("start", start, least=0)
        check_count("stop", stop, least=start)
        place = self._where()
        if stop > max(start, place.items):
            self._left_out.append((place.epoch, start, stop))
            self._left_out.sort()
            self._limit(place.items)

    @property
    def replayed(self) -> dict[str, int]:
        """How many items stages make, or read, again to go on where this loader does, by the
        names of the stages; empty where every stage goes on at once.
        """
        return dict(self._run.replayed)

    def to_torch(
        self, device: Any = None, *, pin_memory: bool | None = None, ahead: int | None = None
    ) -> TorchLoader:
        """Return an iterator over the batches as tensors; it takes the place of this loader.

        On the CPU a tensor is over the memory that its batch arrived in, and nothing is copied. To
        a CUDA device batches go through pinned memory, beside what the device computes. Needs the
        extra ``torch``.

        Args:
            device: where tensors are wanted, as torch names devices; None: where they are.
            pin_memory: whether they go through pinned memory, or into it without a device; None:
                where that is faster.
            ahead: how many batches are under way to the device before they are asked for; None: 1
                where copies and computing overlap.

        Raises:
            ImportError: there is no torch.
            GraphError: there is no such device here.

        Example:
            >>> import splitpipe as sp
            >>> with sp.Pipeline(range(4)).batch(2).loader(executor="inline") as loader:
            ...     list(loader.to_torch())
            [tensor([0, 1]), tensor([2, 3])]
        """
        # By name: it is a room above this one, and has an extra of its own.
        made = import_module("splitpipe.integrations.torch").TorchLoader
        loader: TorchLoader = made(self, device=device, pin_memory=pin_memory, ahead=ahead)
        return loader

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

    def errors(self) -> tuple[FailedItem, ...]:
        """Return the first items of each stage that failed and were left out; `stats` counts."""
        return self._run.observer.errors()

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
            with held_back():
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
        last = epoch + 1 == self._run.options.epochs
        if epoch < self._begins.epoch:
            self._engine.pass_over(epoch, self._output)
            self._engine.leave(epoch, last=last)
            return self._next_epoch()
        self.epoch, self._place = epoch, None
        self._chunks = self._engine.epoch(epoch, last=last, output=self._output)
        if self._recorder is not None:
            seeing = Seeing(self._engine, self, self._begins)
            self._chunks = self._recorder.epoch(epoch, self._chunks, seeing)
        return True

    def _next_chunk(self) -> bool:
        """Go on to the next message of the epoch; False at the end of it."""
        if self._left_out and not self._jump():
            return False
        before = self._where().items if self._left_out else 0
        try:
            chunk = next(self._chunks, None)
        except BaseException as error:
            self._fail(error)
            raise
        if chunk is None:
            self._place = self._place or Place(self.epoch + 1)
            return False
        self._chunk = chunk
        self._advance = chunk.__next__
        if self._left_out:
            self._limit(before)
        return True

    def _where(self) -> Place:
        """Return how far the items that were given reach."""
        if self._place is not None:
            return self._place
        return Place(self.epoch, self._engine.position(self.epoch, self._output))

    def _limit(self, given: int) -> None:
        """Let the current message end where items are left out; `given` came before it."""
        epoch, start, _ = self._left_out[0]
        if epoch == self.epoch and self._place is None:
            self._limited = self._chunk  # which would be closed if nobody held it
            self._chunk = islice(self._limited, max(0, start - given))
            self._advance = self._chunk.__next__

    def _jump(self) -> bool:
        """Go behind items that are left out, if they are next; False where the epoch has ended."""
        place, stop = self._where(), -1
        while self._left_out and self._left_out[0][:2] <= (place.epoch, max(stop, place.items)):
            epoch, _, end = self._left_out.pop(0)
            stop = max(stop, end) if epoch == place.epoch else stop
        if stop <= place.items:
            return True
        self._restart(Place(place.epoch, stop))
        return self._next_epoch() and self.epoch == place.epoch

    def _restart(self, place: Place, state: Mapping[str, Any] | None = None) -> None:
        """Go on at `place`, in another run."""
        run = self._run.again(self._number, place, state)
        if not self._over:
            self._over = True
            self._leave_run()
        self._attach(run, place, sought=state is None or "sought" in state)

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
        self._place = Place(self.epoch + 1)
        self._drop()
        self._engine.leave(self.epoch, last=self.epoch + 1 == self._run.options.epochs)

    def _drop(self) -> None:
        """Close what yields items, so that generators of stages that run here end now."""
        for layer in (self._chunk, self._limited, self._chunks):
            close = getattr(layer, "close", None)
            if close is not None:
                close()
        self._chunk, self._limited, self._chunks = iter(()), iter(()), iter(())

    def _check(self) -> None:
        if self._failure is not None:
            raise PipelineError(
                f"this loader ended with {type(self._failure).__name__}: {self._failure}; "
                "make a new one"
            ) from self._failure

    def _fail(self, error: BaseException) -> None:
        """Be over, because of `error`, or because of what ended the run for another output."""
        with held_back():
            self._place = self._where()
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
        self._place = self._where()
        if self._failure is None:
            self._advance = iter(()).__next__
        self._leave_run()
        if self._recorder is not None:
            self._recorder.close()

    def _leave_run(self) -> None:
        self._finalizer()
        self._drop()
