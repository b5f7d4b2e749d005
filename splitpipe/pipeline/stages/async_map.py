"""`async_map`: one item in, one item out, several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation, Progress, name_of
from splitpipe.pipeline.stages.checks import function, settle, whole
from splitpipe.pipeline.stages.guard import Guard
from splitpipe.pipeline.stages.policy import RAISE, Policy
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
        policy: what becomes of items for which a call fails. What waits to be tried again holds up
            none but those behind it.
    """

    function: Callable[..., Awaitable[Any]]
    concurrency: int = 16
    policy: Policy | None = None
    holds: ClassVar[bool] = True
    ahead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        function("async_map", self.function)
        settle(self, concurrency=whole("concurrency", self.concurrency, least=1))

    @property
    def ratio(self) -> int | None:
        return None if self.policy is not None and self.policy.leaves_out else 1

    @property
    def places(self) -> bool:
        return self.random or self.policy is not None

    @property
    def random(self) -> bool:
        return wants_rng(self.function)

    @property
    def label(self) -> str:
        return name_of(self.function)

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        from splitpipe.pipeline.stages.asynchronous import EventLoop  # asyncio takes 25 ms

        pending: deque[_Call] = deque()
        guard = Guard(self.policy or RAISE, context)
        more, begun = True, context.begun() - context.counts.treated

        def tell() -> Progress:
            given = begun + context.counts.treated
            return Progress((given,), taken=(given + len(pending),))

        context.tell = tell
        with EventLoop(f"splitpipe-{context.stage}") as loop:
            while True:
                while more and len(pending) < self.concurrency and not _done(pending):
                    item = next(items, _NOTHING)
                    if item is _NOTHING:
                        more = False
                        break
                    pending.append(_Call(_place(context)))
                    loop.start(pending[-1], self._tried(item, pending[-1], guard, context))
                    del item
                    while not loop.idle:
                        _keep(loop)
                if not pending:
                    break
                while not pending[0].mail:
                    _keep(loop)
                call = pending.popleft()
                what, value = call.mail.pop()
                context.counts.treated += 1  # in the order of the stream, not of the calls
                if what == "made":
                    yield value
                elif isinstance(value, Exception) and self.policy is not None:
                    guard.leave_out(value, call.place, tries=call.tries)
                else:
                    raise value
                del call, value
        guard.end()

    async def _tried(self, item: Any, call: _Call, guard: Guard, context: Context) -> Any:
        """Return what the function makes of `item`, at the first try that does not fail."""
        import asyncio  # whoever runs this has it

        while True:
            keywords = {"rng": context.rng_at(*call.place)} if self.random else {}
            try:
                return await self.function(item, **keywords)
            except Exception as error:
                wait_s = guard.again(error, call.tries - 1)
                if wait_s is None:
                    raise
            call.tries += 1
            await asyncio.sleep(wait_s)


@dataclass(eq=False, slots=True)
class _Call:
    """A call under way.

    Attributes:
        place: of its item.
        tries: how often it was made.
        mail: what came of it, once it has.
    """

    place: tuple[int, int]
    tries: int = 1
    mail: list[tuple[str, Any]] = field(default_factory=list)


def _done(pending: deque[_Call]) -> bool:
    """Whether the first call is."""
    return bool(pending and pending[0].mail)


def _place(context: Context) -> tuple[int, int]:
    at = context.place
    return (context.counts.treated, 0) if at is None else (at.number, at.part)


def _keep(loop: EventLoop) -> None:
    call, what, value = loop.receive()
    call.mail.append((what, value))
