"""The batches of an iteration, one after the other.

Responsible for: `BatchStream`, which runs the pipeline of an iteration and counts what comes.

Rules:
- the same description over the same snapshot gives the same stream, from any batch on, for any
  number of workers;
- it ends with `Ended`, or with `Broken`, which it gives for ever after: whoever asks once more must
  not take it for the end;
- one thread reads it; `stats` may be asked for by any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from splitpipe.loader import Loader
from splitpipe.server.iterations.made import Broken, Ended, Event, failure_of
from splitpipe.server.iterations.stages import StageWatch
from splitpipe.server.iterations.tally import Count

__all__ = ["BatchStream"]


class BatchStream(Iterator[Event]):
    """An iterator over `Made`, then one `Ended`, or `Broken` at the place of what failed.

    Args:
        loader: gives what the stage `Finish` makes.
        count: counts it.
        begin: the batch that is given first; those before it are made, and thrown away.
        inline: whether the loader makes everything in this process.
        close: what else is to be closed.
    """

    def __init__(
        self,
        loader: Loader,
        count: Count,
        *,
        begin: int = 0,
        inline: bool = False,
        close: Callable[[], None] | None = None,
    ) -> None:
        self._loader = loader
        self._count = count
        self._begin = begin
        self._watch = StageWatch(loader, inline=inline)
        self._close = close
        self._over: Ended | Broken | None = None
        self._told = False
        self._closed = False
        self._last: dict[str, Any] | None = None

    @property
    def sequence(self) -> int:
        """The number of the next batch."""
        return max(self._count.made, self._begin)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._over is None:
            began = perf_counter()
            try:
                return self._next()
            except Exception as error:
                self._over = Broken(self._count.made, failure_of(error))
            finally:
                self._watch.busy_s += perf_counter() - began
        elif self._told and isinstance(self._over, Ended):
            raise StopIteration
        self._told = True
        return self._over

    def _next(self) -> Event:
        if self._closed:
            raise ValueError("this stream of batches was closed")
        self._last = None
        take = self._count.take
        for done in self._loader:
            made = take(done)
            del done
            if made is not None and made.sequence >= self._begin:
                return made
        self._over, self._told = self._count.end(), True
        return self._over

    def checkpoint(self) -> dict[str, Any] | None:
        """Return the place right behind the batch that was given last, in values of JSON; None when
        the stream is over.

        `open_stream` goes on there. It is about as large as what the pipeline holds back: some
        hundred bytes, and a few more for each sample that waits for its category to be full.
        """
        if self._over is not None:
            return None
        if self._last is None:
            count = self._count.to_json()
            self._last = {"version": 1, "sequence": count["made"], "count": count}
            if "seen" in count:
                self._last["pipeline"] = self._loader.state_dict()
        return self._last

    def stats(self) -> Mapping[str, Any]:
        """Return what every stage does, and what holds the stream back, in values of JSON."""
        self._watch.made = self._count.made
        return self._watch.told()

    def close(self) -> None:
        """End all that makes batches. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._loader.close()
            if self._close is not None:
                self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
