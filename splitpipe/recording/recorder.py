"""What a loader delivers, written down as it is delivered.

Responsible for: the `Recorder`, which a loader lets look at every message that it hands on, and
which numbers its *steps*: the items of a training run, from 0, over epochs and resumed runs.

Rules:
- an entry is written before the loop gets the item: what a process was given when it died is known;
- an entry is for a message, which is a batch or a chunk of small items, never for an item of a
  chunk, unless digests are asked for: the cost is that of a message;
- a run that goes on from a state goes on with the numbers that this folder has for that place; what
  is delivered a second time has the same number a second time, and the later entry counts;
- recording that fails ends, with a warning; the run goes on.
"""

from __future__ import annotations

import logging
import secrets
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from itertools import islice
from multiprocessing.util import Finalize
from operator import length_hint
from typing import Any, Protocol

from splitpipe.errors import NotPicklable, SplitpipeError, StorageError
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.plan import Plan
from splitpipe.recording.description import describe, found_as, program
from splitpipe.recording.lines import encode, seal
from splitpipe.recording.options import Record
from splitpipe.recording.reading import Recording
from splitpipe.recording.segments import Segments
from splitpipe.runtime.digest import digest
from splitpipe.runtime.watching import Seen

__all__ = ["Recorder", "traced"]

log = logging.getLogger("splitpipe")

BLOCK_S = 0.005
"""Items that are made here one by one, and quickly, share an entry for about so long."""
MOST_TOGETHER = 1024
VERSION = 1


class Recorded(Protocol):
    """What a recorder asks of a running loader."""

    def first(self, epoch: int) -> int:
        """Return how many items of `epoch` were delivered before the run."""

    def seen(self) -> Seen | None:
        """Return what brought the items that were given last; None where they were made here."""

    def state(self) -> dict[str, Any] | None:
        """Return the state of the loader; None where it has none."""

    def tasks(self) -> list[dict[str, Any]]:
        """Return what every task did so far."""


class Recorder:
    """Writes what a loader delivers.

    Args:
        record: where to, and what.
        pipeline: that is run.
        options: of the run, to be read by people.
        plan: who runs what.
        begins: epoch, and items of it that were delivered before.

    Raises:
        StorageError: nothing can be written there.
    """

    def __init__(
        self,
        record: Record,
        pipeline: Pipeline,
        *,
        options: Mapping[str, Any],
        plan: Plan,
        output: int = 0,
        begins: tuple[int, int] = (0, 0),
    ) -> None:
        self._record = record
        self._began = time.perf_counter()
        self._epoch, self._ordinal = begins
        self.step = _first_step(record, pipeline, *begins)
        self._traced = traced(plan, output)
        self._last: Seen | None = None
        self._chunk: Iterator[Any] = iter(())
        self._noted = -record.every_s
        self._stated = True
        self._failed = False
        self._graph: Any = None  # what states of the current file say of the graph
        heading = {
            "splitpipe_recording": VERSION,
            "run": secrets.token_hex(4),
            "started": time.time(),
            "load": record.load or found_as(pipeline),
            "digests": record.digests,
            "traced": self._traced,
            "begins": {"step": self.step, "epoch": self._epoch, "at": self._ordinal},
            "options": dict(options),
            "program": program(),
            "pipeline": describe(pipeline),
        }
        segments = Segments(record.directory, encode(heading), max_bytes=record.max_bytes)
        self._segments: Segments | None = segments
        self._finalizer: Any = Finalize(self, segments.close, exitpriority=90)

    def epoch(
        self, epoch: int, chunks: Iterator[Iterator[Any]], loader: Recorded
    ) -> Iterator[Iterator[Any]]:
        """Yield `chunks` of an epoch, and write down what they hold."""
        self._go_to(epoch, loader.first(epoch))
        try:
            while True:
                self._look(loader)
                chunk = next(chunks, None)
                if chunk is None:
                    break
                self._chunk = chunk = self._noted_chunk(chunk, loader)
                yield chunk
                del chunk
            self._write(encode({"ended": epoch, "items": self._ordinal, "step": self.step}))
        finally:
            self._settle()
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def _go_to(self, epoch: int, delivered: int) -> None:
        """What comes next is what follows after `delivered` items of `epoch`."""
        before, now = (self._epoch, self._ordinal), (epoch, delivered)
        self._epoch, self._ordinal = now
        if before == now or (delivered == 0 and epoch > before[0]):
            return  # it goes on
        found = Recording(self._record.directory).step_of(epoch, delivered)
        self.step = self.step if found is None else found
        self._noted = -self._record.every_s
        self._write(encode({"moved": {"step": self.step, "epoch": epoch, "at": delivered}}))

    def failed(self, error: BaseException) -> None:
        """Write down why the loader ended."""
        self._settle()
        self._failed = True
        self._write(
            encode(
                {
                    "failed": type(error).__name__,
                    "message": str(error)[:2000],
                    "notes": [str(note)[:500] for note in getattr(error, "__notes__", [])][:8],
                    "step": self.step,
                    "epoch": self._epoch,
                    "at": self._ordinal,
                    "t": round(time.perf_counter() - self._began, 6),
                }
            )
        )

    def close(self) -> None:
        """The loader is over. Safe to call twice."""
        self._settle()
        if self._segments is not None:
            elapsed = round(time.perf_counter() - self._began, 6)
            if not self._failed:
                self._write(encode({"closed": True, "step": self.step, "t": elapsed}))
            self._segments = None
        self._finalizer()

    def _settle(self) -> None:
        """What a chunk still holds was not delivered."""
        chunk, self._chunk = self._chunk, iter(())
        self._advance(-length_hint(chunk))

    # -- entries

    def _noted_chunk(self, chunk: Iterator[Any], loader: Recorded) -> Iterator[Any]:
        """Return the items of a chunk, which are noted: now, or as they come."""
        if self._segments is None:
            return chunk
        seen = loader.seen()
        if seen is self._last:
            seen = None  # what comes before a failure is told by none
        else:
            self._last = seen
        if self._record.digests:
            return self._each(chunk, seen, loader)
        if seen is None:
            return self._blocks(chunk, loader)
        count = length_hint(chunk) or 1  # a batch comes alone, in what does not tell its length
        self._entry(count, seen)
        self._advance(count)
        return chunk

    def _each(self, items: Iterator[Any], seen: Seen | None, loader: Recorded) -> Iterator[Any]:
        """Yield items one by one, each with the digest of its content."""
        for item in items:
            try:
                mark: bytes | None = digest(item)
            except NotPicklable:
                mark = None
            self._entry(1, seen, mark)
            self._advance(1)
            yield item
            del item
            self._look(loader)

    def _blocks(self, items: Iterator[Any], loader: Recorded) -> Iterator[Any]:
        """Yield items that are made here: each with its entry, unless they come very quickly."""
        count = 1
        since = time.perf_counter()
        while True:
            if count == 1:
                try:
                    item = next(items)
                except StopIteration:
                    return
                self._entry(1, None)
                self._advance(1)
                yield item
                del item
                made = 1
            else:
                self._entry(count, None)
                made = yield from self._counted(islice(items, count))
                if made < count:
                    return
            self._look(loader)
            now = time.perf_counter()
            wanted = made * BLOCK_S / max(1e-9, now - since)
            count = int(max(1, min(wanted, 4 * count, MOST_TOGETHER)))
            since = now

    def _counted(self, items: Iterator[Any]) -> Generator[Any, None, int]:
        made = 0
        try:
            for item in items:
                made += 1
                yield item
                del item
        finally:
            self._advance(made)
        return made

    def _advance(self, count: int) -> None:
        self.step += count
        self._ordinal += count

    def _entry(self, count: int, seen: Seen | None, mark: bytes | None = None) -> None:
        elapsed = time.perf_counter() - self._began
        line = b'{"step":%d,"n":%d,"epoch":%d,"at":%d,"t":%.6f' % (
            self.step,
            count,
            self._epoch,
            self._ordinal,
            elapsed,
        )
        if seen is not None:
            line += b',"worker":%d,"ms":%.3f,"bytes":%d' % (
                seen.producer,
                seen.elapsed_ns / 1e6,
                seen.nbytes,
            )
            if self._traced:
                line += b',"from":%d,"to":%d' % (seen.start, seen.stop)
        if mark is not None:
            line += b',"digest":"%s"' % mark.hex().encode()
        self._write(seal(line))

    # -- now and then

    def _look(self, loader: Recorded) -> None:
        """Note the state of the loader, when that was long ago: everything that came was taken."""
        now = time.perf_counter() - self._began
        if self._segments is None or now - self._noted < self._record.every_s:
            return
        self._noted = now
        place = {"step": self.step, "epoch": self._epoch, "at": self._ordinal, "t": round(now, 6)}
        self._write(encode({"state": self._state(loader), **place, "tasks": loader.tasks()}))

    def _state(self, loader: Recorded) -> dict[str, Any] | None:
        if not self._stated:
            return None
        try:
            state = loader.state()
        except SplitpipeError as error:
            self._stated = False
            log.warning("the recording has no states of the loader: %s", error)
            return None
        if state is not None and "graph" in state:
            graph, self._graph = self._graph, state["graph"]
            if graph == self._graph:  # once a file: it is most of a state
                return {key: value for key, value in state.items() if key != "graph"}
        return state

    def _write(self, line: bytes) -> None:
        segments = self._segments
        if segments is None:
            return
        try:
            if segments.append(line):
                self._noted = -self._record.every_s  # a file begins with a state
                self._graph = None
        except (OSError, StorageError) as error:
            self._segments = None
            self._finalizer()
            text = f"recording into {self._record.directory} ended at step {self.step}: {error}"
            log.warning("%s", text)
            warnings.warn(text, RuntimeWarning, stacklevel=2)


def traced(plan: Plan, output: int = 0) -> bool:
    """Whether messages that reach output `output` say positions of the one source of the graph."""
    local = plan.locals[output] if output < len(plan.locals) else plan.locals[0]
    if not local.passes_on:
        return False
    (edge,) = local.inputs
    task = next(task for task in plan.tasks if edge in task.outputs)
    return task.pool and not task.inputs


def _first_step(record: Record, pipeline: Pipeline, epoch: int, delivered: int) -> int:
    """Return the step of the item that comes next, for a loader that begins at this place."""
    if (epoch, delivered) == (0, 0):
        return 0
    found = Recording(record.directory, missing_ok=True).step_of(epoch, delivered)
    if found is not None:
        return found
    try:
        return epoch * len(pipeline) + delivered
    except TypeError:
        return delivered  # only running tells: steps are those of this epoch
