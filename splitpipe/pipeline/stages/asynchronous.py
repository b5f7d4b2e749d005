"""Coroutines and async generators inside of a stage.

Responsible for: `EventLoop`, a loop of asyncio's in a thread of its own, and `stream`, which drives
an async generator from ordinary code.

Rules:
- the loop belongs to whoever made it, and ends with it: tasks that are still under way are
  cancelled and waited for, then the thread is;
- a thread of its own, since the stage's thread may run a loop already (a notebook does), and since
  tasks shall go on while the stage waits for its input or for its reader;
- inputs are read in the stage's thread, as those of any stage, and only when the user's code asks
  for an item; an async generator runs as one task from its beginning to its end, and no further
  than the item it was asked for;
- arrays that user code makes with `splitpipe.empty` come from the heap: memory that is shared with
  a reader is given out to one thread only;
- whatever user code raises, SystemExit included, is raised in the stage's thread; a loop that ends
  before it should is an error, never silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from splitpipe.errors import StageFailed
from splitpipe.pipeline.allocate import use_allocator

__all__ = ["EventLoop", "stream"]

_END = object()
_WANTED, _MADE, _ENDED, _FAILED, _DEAD = "wanted", "made", "ended", "failed", "dead"


class EventLoop:
    """A loop in a thread of its own, and the mail that comes from it.

    Args:
        name: of the thread.

    Example:
        >>> async def double(x):
        ...     await asyncio.sleep(0)
        ...     return 2 * x
        >>> with EventLoop("example") as loop:
        ...     loop.start(0, double(21))
        ...     loop.receive()
        (0, 'made', 42)
    """

    def __init__(self, name: str) -> None:
        self._mail: SimpleQueue[tuple[Any, str, Any]] = SimpleQueue()
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False  # tasks are cancelled because of that, not by anyone who is waiting
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._ready.wait()

    def __enter__(self) -> EventLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, key: Any, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine; what it returns or raises comes by mail, under `key`."""
        self.call(self._spawn, key, coroutine)

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in the loop's thread."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # it has ended: the mail says why
            self.receive()

    def send(self, key: Any, what: str, value: Any) -> None:
        """Put something into the mail; in the loop's thread."""
        self._mail.put((key, what, value))

    def receive(self) -> tuple[Any, str, Any]:
        """Wait for the next letter: a key, what it is about, and a value.

        Raises:
            StageFailed: the loop has ended, because of what a task raised that nobody waited for.
        """
        key, what, value = self._mail.get()
        if what is _DEAD:
            self._mail.put((key, what, value))
            raise StageFailed(f"the event loop of the stage ended: {value!r}") from value
        return key, what, value

    @property
    def idle(self) -> bool:
        """Whether no letter waits."""
        return self._mail.empty()

    def close(self) -> None:
        """Cancel what is under way, wait for it, and end the thread; a second call does nothing."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        ended: BaseException | None = None
        use_allocator(_heap)
        try:
            with asyncio.Runner() as runner:
                try:
                    runner.run(self._main())
                finally:
                    self._ending = True
        except BaseException as error:
            ended = error
        self._mail.put((None, _DEAD, ended))
        self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ready.set()
        await self._stop.wait()

    def _spawn(self, key: Any, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(self._guarded(key, coroutine))
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, key: Any, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            value = await coroutine
        except BaseException as error:
            if not (self._ending and isinstance(error, asyncio.CancelledError)):
                self.send(key, _FAILED, error)
        else:
            self.send(key, _MADE, value)


def _heap(shape: int | Sequence[int], dtype: DTypeLike, near: Any) -> NDArray[Any]:
    del near
    return np.empty(shape, dtype)


def stream(
    name: str,
    function: Callable[..., AsyncIterator[Any]],
    inputs: Sequence[Iterator[Any]],
    keywords: dict[str, Any],
) -> Iterator[Any]:
    """Yield what the async generator ``function(*inputs, **keywords)`` does.

    Args:
        name: of the thread that its loop runs in.
        function: called with an async iterator for each of `inputs`; what else it is given by
            position has been bound to it.
        inputs: read when it asks for an item.
        keywords: handed on.
    """
    with EventLoop(name) as loop:
        bridge = _Bridge(loop, inputs)
        loop.start(_ENDED, bridge.drive(function, keywords))
        try:
            while (item := bridge.next()) is not _END:
                yield item
                del item
        finally:
            bridge.close()


class _Bridge:
    """Between the stage's thread, which has the inputs, and the loop's, which has the generator.

    Args:
        loop: of the generator.
        inputs: of the stage.
    """

    def __init__(self, loop: EventLoop, inputs: Sequence[Iterator[Any]]) -> None:
        self._loop = loop
        self._inputs = inputs
        self._asked = asyncio.Event()
        self._closing = False
        self._over = False

    def next(self) -> Any:
        """Return the next item, or `_END`."""
        self._loop.call(self._asked.set)
        while True:
            key, what, value = self._loop.receive()
            if what is _WANTED:
                self._answer(self._inputs[key], value)
                continue
            if key is not _ENDED:
                return value
            self._over = True
            if what is _FAILED:
                raise value
            return _END

    def close(self) -> None:
        """Let the generator end, and wait for it; inputs have no more items for it then.

        Raises:
            BaseException: what its cleaning up raised.
        """
        if self._over:
            return
        self._closing = True
        self._loop.call(self._asked.set)
        while True:
            key, what, value = self._loop.receive()
            if what is _WANTED:
                self._loop.call(_settle, value, _END, None)
            elif key is _ENDED:
                self._over = True
                if what is _FAILED:
                    raise value
                return

    def _answer(self, items: Iterator[Any], wanted: asyncio.Future[Any]) -> None:
        try:
            item = next(items, _END)
        except Exception as error:  # it is the generator's to handle; an interrupt is not
            self._loop.call(_settle, wanted, None, error)
        else:
            self._loop.call(_settle, wanted, item, None)

    async def drive(
        self, function: Callable[..., AsyncIterator[Any]], keywords: dict[str, Any]
    ) -> None:
        """Run the generator, item by item, as it is asked."""
        if not await self._gate():
            return
        made = function(*map(self._feed, range(len(self._inputs))), **keywords)
        try:
            async for item in made:
                self._loop.send(None, _MADE, item)
                del item
                if not await self._gate():
                    return
        finally:
            close = getattr(made, "aclose", None)
            if close is not None:
                await close()

    async def _gate(self) -> bool:
        """Wait until an item is asked for; False: none will be."""
        await self._asked.wait()
        self._asked.clear()
        return not self._closing

    async def _feed(self, number: int) -> AsyncIterator[Any]:
        while True:
            wanted = asyncio.get_running_loop().create_future()
            self._loop.send(number, _WANTED, wanted)
            item = await wanted
            del wanted
            if item is _END:
                return
            yield item
            del item


def _settle(wanted: asyncio.Future[Any], item: Any, error: Exception | None) -> None:
    if wanted.cancelled():
        return  # whoever waited for it gave up
    if error is not None:
        wanted.set_exception(error)
    else:
        wanted.set_result(item)
