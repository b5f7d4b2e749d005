"""Where tasks go on whose output is read by merges that stay.

Responsible for: `going_on`, which puts together what is known when a set of workers is to be
replaced: how much the merges have taken, from which messages, and what the workers have laid open.

Rules:
- without it everything is right, too: tasks begin their epoch anew and leave out what was taken.
  It only moves their beginning forward;
- what the consumer's own stages need does not matter: they go on where they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from splitpipe.pipeline.bodies import upstream
from splitpipe.pipeline.plan import Plan
from splitpipe.pipeline.resuming import Fact, Facts, Resume, as_facts, settle
from splitpipe.pipeline.source import FactorySource
from splitpipe.runtime.budgets import budgeted
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.ledger import Ledger

__all__ = ["going_on"]


def going_on(
    plan: Plan, merges: Sequence[Sequence[Inbox]], ledgers: Sequence[Ledger], epochs: int | None
) -> Resume | None:
    """Return from where on the tasks of `plan` are wanted; None: from the beginning of an epoch, or
    they are asked for the rest anyway.

    Args:
        plan: what is run.
        merges: of the consumer's process, for each of its locals.
        ledgers: of the tasks, in their order.
        epochs: the number of the one behind the last.
    """
    if not _can_be(plan):
        return None
    whole, facts = plan.whole, Facts()
    wanted: dict[str, int] = {}
    at: set[int] = set()
    for local, inboxes in zip(plan.locals, merges, strict=True):
        for part in local.body.parts:
            if part.edge is None or not inboxes[part.edge].start().wanted:
                continue
            inbox = inboxes[part.edge]
            at.add(inbox.current)
            wanted[part.key] = min(inbox.taken, wanted.get(part.key, inbox.taken))
            span = inbox.span
            if part.span is not None and span is not None and span[1]:
                facts.add(part.span[0], Fact(span[0], (span[1],), None, part.span[1]))
    if len(at) != 1 or (epochs is not None and max(at) >= epochs):
        return None  # some are an epoch ahead of others
    (epoch,) = at
    if epoch == whole.epoch:
        for key, fact in as_facts(whole.settled, whole.keys).items():
            facts.add(key, fact)
    graph = upstream(whole.graph, whole.keys, wanted)
    for ledger in reversed(ledgers):
        # What a stage needs says which facts are of use before it, also within one task.
        before: dict[str, int] | None = None
        while True:
            settled = settle(graph, whole.keys, Resume(epoch, {}, facts, wanted))
            most = {whole.keys[node]: count for node, count in settled.wanted.items()}
            if most == before:
                break
            before = most
            for key, fact in ledger.facts(epoch, most.get):
                facts.add(key, fact)
    return Resume(epoch, {}, facts, wanted)


def _can_be(plan: Plan) -> bool:
    """Whether the tasks of `plan` can be told where to go on, and need to be."""
    claimed = all(task.pool and not task.inputs for task in plan.tasks)
    if claimed or not all(task.ordered for task in plan.tasks):
        return False
    parts = [part for task in plan.tasks for part in task.body.parts]
    if any(isinstance(part.source, FactorySource) for part in parts):
        return False  # it is read from its beginning anyway: what it gave before is counted then
    # Who judges a budget has to have seen the whole epoch.
    return not any(budgeted(task.body) for task in plan.tasks if not task.pool)
