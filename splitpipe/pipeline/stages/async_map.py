"""`async_map`: one item in, one item out, several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation, name_of
from splitpipe.pipeline.stages.checks import function, settle, whole
from splitpipe.pipeline.stages.random import wants_rng

if TYPE_CHECKING:
    from splitpipe.pipeline.stages.asynchronous import EventLoop

__all__ = ["AsyncMap"]

_NOTHING = object()


@dataclass(frozen=True)
class AsyncMap(Operation):
    """One item in, one item out: a coroutine function, with up to `concurrency` calls under way.

    Results come in the order of the items. What one call raises is raised at its item's place;
    calls behind it are cancelled then, and waited for.

    Args:
        function: an ``async def`` that is called with each item; a parameter ``rng`` gets the
            item's generator.
        concurrency: most calls under way, and so most items that are read ahead.
    """

    function: Callable[..., Awaitable[Any]]
    concurrency: int = 16
    holds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        function("async_map", self.function)
        settle(self, concurrency=whole("concurrency", self.concurrency, least=1))

    @property
    def ratio(self) -> int | None:
        return 1

    @property
    def random(self) -> bool:
        return wants_rng(self.function)

    @property
    def label(self) -> str:
        return name_of(self.function)

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        from splitpipe.pipeline.stages.asynchronous import EventLoop  # asyncio takes 25 ms

        pending: deque[list[Any]] = deque()  # what came by mail for each call, first call first
        more = True
        with EventLoop(f"splitpipe-{context.stage}") as loop:
            while True:
                while more and len(pending) < self.concurrency and not (pending and pending[0]):
                    item = next(items, _NOTHING)
                    if item is _NOTHING:
                        more = False
                        break
                    pending.append([])
                    loop.start(pending[-1], self._call(item, context))
                    del item
                    while not loop.idle:
                        _keep(loop)
                if not pending:
                    return
                while not pending[0]:
                    _keep(loop)
                ((what, value),) = pending.popleft()
                if what == "failed":
                    raise value
                yield value
                del value

    def _call(self, item: Any, context: Context) -> Any:
        keywords = {"rng": context.item_rng()} if self.random else {}
        return _awaited(self.function, item, keywords)


def _keep(loop: EventLoop) -> None:
    call, what, value = loop.receive()
    call.append((what, value))


async def _awaited(
    function: Callable[..., Awaitable[Any]], item: Any, keywords: dict[str, Any]
) -> Any:
    return await function(item, **keywords)
