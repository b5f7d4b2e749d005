"""`AsyncRemoteLoader`: the same for programs of asyncio.

Responsible for: an asynchronous iterator in front of a `RemoteLoader`.

Rules:
- a batch that is here is given at once; only waiting for one happens in another thread;
- a task that is cancelled while it waits loses no batch: the next one gets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from splitpipe.client.loader import RemoteLoader, RemoteStatistics

__all__ = ["AsyncRemoteLoader"]

_SLICE_S = 0.2
"""How long a thread waits before it looks whether its task is still there."""


class AsyncRemoteLoader:
    """As `RemoteLoader`, for ``async for``. Made by `Client.iterate_async`."""

    def __init__(self, make: Callable[[], RemoteLoader]) -> None:
        self._make = make
        self._made: RemoteLoader | None = None
        self._convert = False
        self._lock = asyncio.Lock()

    async def start(self) -> RemoteLoader:
        """Ask the server for the iteration, if that was not done; return the loader behind this."""
        async with self._lock:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
                if self._convert:
                    self._made.to_torch()
        return self._made

    @property
    def loader(self) -> RemoteLoader:
        """The loader behind this, once it was started."""
        if self._made is None:
            raise RuntimeError("this loader has not begun: enter it with 'async with', or iterate")
        return self._made

    def __aiter__(self) -> AsyncRemoteLoader:
        return self

    async def __anext__(self) -> Any:
        loader = await self.start()
        while True:
            try:
                found = loader.take(timeout_s=0.0)
            except TimeoutError:
                await asyncio.to_thread(loader.wait, _SLICE_S)
                continue
            except StopIteration:
                raise StopAsyncIteration from None
            return found

    @property
    def iteration(self) -> str:
        """The id of the iteration."""
        return self.loader.iteration

    def ack(self, sequence: int | None = None) -> None:
        """See `RemoteLoader.ack`."""
        self.loader.ack(sequence)

    def pushback(self) -> int:
        """See `RemoteLoader.pushback`."""
        return self.loader.pushback()

    def state_dict(self) -> dict[str, Any]:
        """See `RemoteLoader.state_dict`."""
        return self.loader.state_dict()

    async def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `RemoteLoader.load_state_dict`."""
        loader = await self.start()
        await asyncio.to_thread(loader.load_state_dict, state)

    def stats(self) -> RemoteStatistics:
        """See `RemoteLoader.stats`."""
        return self.loader.stats()

    def to_torch(self) -> AsyncRemoteLoader:
        """See `RemoteLoader.to_torch`."""
        self._convert = True
        if self._made is not None:
            self._made.to_torch()
        return self

    async def close(self) -> None:
        """See `RemoteLoader.close`."""
        if self._made is not None:
            await asyncio.to_thread(self._made.close)

    async def __aenter__(self) -> AsyncRemoteLoader:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._made is not None:
            await asyncio.to_thread(self._made.__exit__, kind, error, trace)
