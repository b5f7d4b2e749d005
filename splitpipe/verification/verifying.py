"""`verify`: does splitpipe keep its promises on this graph?

Responsible for: the call and its options, the order of the checks, and their time.

Rules:
- the truth is what ``inline`` gives in this process, the first time;
- without a word of the user's it takes less than a minute: the first items of two epochs are
  compared, as many as the time allows, and what was not checked is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from splitpipe.errors import GraphError
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import common_seed, walk
from splitpipe.pipeline.stage import check_choice, check_count
from splitpipe.verification import checks as by_comparing
from splitpipe.verification.elsewhere import Trailed
from splitpipe.verification.graphs import settled, with_seed
from splitpipe.verification.leaking import leaks
from splitpipe.verification.ranking import ranks
from splitpipe.verification.report import Check, Verification
from splitpipe.verification.resuming import resume
from splitpipe.verification.streams import read
from splitpipe.verification.subject import Subject
from splitpipe.verification.trails import Trail

__all__ = ["CHECKS", "verify"]

CHECKS = ("repeat", "process", "workers", "executor", "once", "resume", "ranks", "leaks")
"""In their order: what goes wrong in the first ones makes later ones pointless."""

ITEMS = 1000
SHARE = 1 / 25
"""Of the time, for the first run: there are some twenty more."""

Checker = Callable[[Subject], Iterator[Check]]


def verify(
    pipeline: Pipeline,
    *,
    items: int = ITEMS,
    epochs: int = 2,
    seconds: float = 45.0,
    checks: Iterable[str] = CHECKS,
    workers: int = 3,
    seed: int | None = None,
    start_method: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Verification:
    """Prove what splitpipe promises, on your own graph.

    It is run in every way that must not change its stream, and what comes out is compared with what
    ``executor="inline"`` gives. Where it differs the stage is named with which that begins.

    Args:
        pipeline: what to verify; it is run some twenty times, in this process as well.
        items: to compare of every epoch, at most; fewer where the time does not allow as many.
        epochs: to compare.
        seconds: how long it may take; a check that has begun is finished.
        checks: which of `CHECKS`; docs/verify.md tells what each of them is.
        workers: the most that a stage is given.
        seed: instead of the graph's own.
        start_method: of worker processes, as for `Pipeline.loader`.
        progress: called with the name of each check before it begins.

    Raises:
        GraphError: there is no such check, or the graph cannot be run at all.

    Example:
        >>> import splitpipe as sp
        >>> made = []
        >>> counted = sp.Pipeline(range(9)).map(lambda x: made.append(x) or len(made), name="count")
        >>> found = sp.verify(counted, checks=["repeat"])
        >>> found.ok, found.stages
        (False, ('count',))
    """
    options = _Options(_wanted(checks), items, epochs, seconds, workers, seed, start_method)
    if not isinstance(pipeline, Pipeline):
        raise GraphError(f"verify needs a pipeline, not a {type(pipeline).__name__}")
    return _verified(pipeline, options, progress or (lambda _: None))


@dataclass(frozen=True)
class _Options:
    """What a user asked for; see `verify`."""

    checks: tuple[str, ...]
    items: int
    epochs: int
    seconds: float
    workers: int
    seed: int | None
    start_method: str | None

    def __post_init__(self) -> None:
        check_count("items", self.items, least=1)
        check_count("epochs", self.epochs, least=1)
        check_count("workers", self.workers, least=2)


def _verified(pipeline: Pipeline, options: _Options, tell: Callable[[str], None]) -> Verification:
    began = time.monotonic()
    seed, seconds = options.seed, options.seconds
    graph = settled(pipeline if seed is None else with_seed(pipeline, seed))
    tell("the first run")
    truth, trail = _first(graph, options.items, options.epochs, began + seconds * SHARE)
    compared = max((len(marks) for marks in truth.epochs), default=0)
    subject = Subject(
        pipeline=graph,
        items=options.items if truth.whole else max(1, compared),
        epochs=options.epochs,
        workers=options.workers,
        worlds=(1, 2, 4),
        start_method=options.start_method,
        deadline=began + seconds,
        truth=truth,
        trail=trail,
    )
    found: list[Check] = []
    for name, check in _checkers(options.checks):
        tell(name)
        found += _timed(subject, name, check)
    return Verification(
        pipeline=repr(pipeline),
        checks=tuple(found),
        items=compared,
        epochs=options.epochs,
        whole=truth.whole,
        seed=common_seed(walk([graph.node])),
        seconds=time.monotonic() - began,
        failure=truth.failure,
    )


def _wanted(checks: Iterable[str]) -> tuple[str, ...]:
    given = (checks,) if isinstance(checks, str) else tuple(checks)
    for name in given:
        check_choice("a check", name, CHECKS)
    return tuple(name for name in CHECKS if name in given)


def _first(graph: Pipeline, items: int, epochs: int, until: float) -> Trailed:
    trail = Trail()
    truth = read(
        graph,
        items=items,
        epochs=epochs,
        watcher=trail,
        until=lambda: time.monotonic() > until,
        executor="inline",
    )
    return truth, trail.layers


def _checkers(wanted: tuple[str, ...]) -> Iterator[tuple[str, Checker]]:
    ways = tuple(name for name in wanted if name in ("workers", "executor"))
    known: dict[str, Checker] = {
        "repeat": by_comparing.repeat,
        "process": by_comparing.process,
        "once": by_comparing.once,
        "resume": resume,
        "ranks": ranks,
        "leaks": leaks,
    }
    for name in wanted:
        if name in known:
            yield name, known[name]
        elif name == ways[0]:
            yield " and ".join(ways), partial(by_comparing.runs, ways=ways)


def _timed(subject: Subject, name: str, check: Checker) -> Iterator[Check]:
    """Yield what a check finds, with the time that it took."""
    pointless = None if name in ("repeat", "leaks") else by_comparing.unstable(subject, name)
    if pointless is None and subject.over():
        pointless = Check(name, "not checked", "no time was left: raise seconds=")
    if pointless is not None:
        yield pointless
        return
    since = time.monotonic()
    for found in check(subject):
        now = time.monotonic()
        yield replace(found, seconds=now - since)
        since = now
    if subject.truth.unlike is not None and name == "repeat":
        detail = f"items were compared by their type alone: {subject.truth.unlike}"
        yield Check("content", "not checked", detail)
