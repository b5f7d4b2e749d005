"""Whether every item is accounted for.

Responsible for: `Balance`, the check that what a process took is what it gave on, filtered out and
left out: ``taken == given + dropped + skipped``. It holds for stages that give at most one item for
one, and is checked where a process runs nothing else and may leave items out: once a unit of work,
or once an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from splitpipe.errors import PipelineError
from splitpipe.pipeline import stages as operations  # each is imported when it is first named
from splitpipe.pipeline.graph import Body
from splitpipe.pipeline.guarding import may_fail
from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.guarded import Guarded
from splitpipe.pipeline.stages.reading import Reading

__all__ = ["Balance"]


@dataclass(frozen=True, slots=True)
class Balance:
    """The check for one body.

    Attributes:
        name: of its stages.
    """

    name: str

    @classmethod
    def of(cls, body: Body) -> Balance | None:
        """Return the check for `body`; None where there is nothing to check."""
        stages = body.stages
        chain = len(body.heads) == len(body.outputs) == 1
        guarded = any(may_fail(stage.operation) for stage in stages)
        if not (chain and guarded and all(_one_at_most(stage.operation) for stage in stages)):
            return None
        return cls(body.name)

    def check(self, contexts: Mapping[str, Context], *, taken: int, given: int) -> None:
        """Compare what stages took and gave, which counted in `contexts`.

        Raises:
            PipelineError: an item is missing, or there is one too many.
        """
        dropped = sum(context.dropped for context in contexts.values())
        skipped = sum(context.counts.skipped for context in contexts.values())
        if taken != given + dropped + skipped:
            raise PipelineError(
                f"{self.name!r} took {taken} items, gave {given}, filtered out {dropped} and left "
                f"out {skipped}: a fault of splitpipe"
            )


def _one_at_most(operation: Operation) -> bool:
    inner = operation.operation if isinstance(operation, Guarded) else operation
    one_at_most = (operations.AsyncMap, operations.Filter, operations.Map, operations.Tee, Reading)
    return isinstance(inner, one_at_most)
