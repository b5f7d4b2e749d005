"""Stages over the whole stream, and branches of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, Unpack

from splitpipe.errors import GraphError
from splitpipe.pipeline import stages
from splitpipe.pipeline.guarding import guarded
from splitpipe.pipeline.methods.base import (
    Methods,
    PoolOptions,
    StreamOptions,
    function_of,
    stage_options,
)
from splitpipe.pipeline.stage import StageOptions, check_count
from splitpipe.pipeline.stages.policy import Policy

__all__ = ["FlowMethods"]


class FlowMethods(Methods):
    """Methods of a `Pipeline` that see the stream as a whole."""

    def through(
        self,
        generator: Callable[..., Iterable[Any]],
        *args: Any,
        workers: int | None = None,
        executor: str | None = None,
        capacity: int | None = None,
        restart_every: int | None = None,
        deadline_s: float | None = None,
        resources: Mapping[str, float] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Pass the whole stream through ``generator(items, *args, **kwargs)``: the general stage.

        It runs anew for every epoch, in one worker. It may end before its input does; what it did
        not take is then not made.

        To go on in the middle of an epoch it has to be run again from its beginning, unless what is
        called or what it returns has ``state_dict()`` and ``load_state_dict(state)``, in values of
        JSON; or with ``restart_every=n``: it is called anew for every `n` items, so that no more
        than those have to be made again (what it does not take of them is left out then).

        Its options are those of `StreamOptions`; other keywords are the generator's.

        Example:
            >>> import splitpipe as sp
            >>> def pairs(items, gap):
            ...     for item in items:
            ...         yield item, item + gap
            >>> list(sp.Pipeline(range(2)).through(pairs, gap=10))
            [(0, 10), (1, 11)]
        """
        operation = stages.Through(function_of("through", generator), args, kwargs, restart_every)
        options: StreamOptions = {
            "workers": workers,
            "executor": executor,
            "capacity": capacity,
            "deadline_s": deadline_s,
            "resources": resources,
        }
        return self._with(operation, name, stage_options(options))

    def shuffle(self, buffer: int, **options: Unpack[StreamOptions]) -> Self:
        """Give items in random order, within a buffer; the order depends on seed and epoch alone.

        How well that mixed is measured while it runs: see `Loader.stats`. A dataset is shuffled
        better, and at no cost, by ``Pipeline(dataset, shuffle=...)``.

        Args:
            buffer: items that are held; no item comes more than `buffer` - 1 places early.
            options: see `StreamOptions`.

        Example:
            >>> import splitpipe as sp
            >>> sorted(sp.Pipeline(range(5)).shuffle(3))
            [0, 1, 2, 3, 4]
        """
        return self._stream(stages.Shuffle(buffer), options)

    def repeat(self, count: int | None = None, **options: Unpack[StreamOptions]) -> Self:
        """Go through the stream `count` times in every epoch; None: for ever.

        Each pass is one like any other: shuffled anew, with other random numbers. What lies before
        it must not have a process of its own, unless it treats each item by itself.

        Example:
            >>> import splitpipe as sp
            >>> list(sp.Pipeline(range(2)).repeat(2))
            [0, 1, 0, 1]
        """
        return self._stream(stages.Repeat(count), options)

    def tee(self, count: int = 2, *, capacity: int | None = None) -> tuple[Self, ...]:
        """Return the stream `count` times: branches, which `zip`, `mix` or `run` join or read.

        Using a pipeline twice is a branch as well; this says how far branches may be apart.

        Args:
            count: branches.
            capacity: items that one branch may be behind another; 1024 unless given. Further behind
                it is an error that names it (`BranchStalled`).

        Example:
            >>> import splitpipe as sp
            >>> left, right = sp.Pipeline(range(3)).tee()
            >>> list(sp.zip(left, right.map(str)))
            [(0, '0'), (1, '1'), (2, '2')]
        """
        count = check_count("count", count, least=1)
        teed = self._with(stages.Tee(), None, StageOptions(capacity=capacity))
        return (teed,) * count

    def route(
        self,
        key: Callable[[Any], Any],
        branches: Mapping[Any, Callable[[Any], Any] | None],
        *,
        other: Any = "raise",
        on_error: Policy | str | None = None,
        **options: Unpack[PoolOptions],
    ) -> Self:
        """Let what happens to an item depend on the item; outputs come in the order of their
        inputs.

        Args:
            key: called with each item; returns a label.
            branches: label -> a function that is given a pipeline and returns it with stages that
                treat each item by itself; None: items pass as they are.
            other: what becomes of an item whose label is not among them: ``"raise"``; the label of
                the branch that it goes through; or None: it is left out, and counted.
            on_error: what becomes of an item for which `key` or a stage of its branch raises, as
                for `map`; stages of a branch may say it themselves, too.
            options: see `PoolOptions`.

        Example:
            >>> import splitpipe as sp
            >>> numbers = sp.Pipeline(range(5))
            >>> even = {True: lambda pipe: pipe.map(str), False: None}
            >>> list(numbers.route(lambda x: x % 2 == 0, even))
            ['0', 1, '2', 3, '4']
        """
        made = {label: self._branch(label, begin) for label, begin in branches.items()}
        operation = stages.Route(function_of("route", key), made, other)
        return self._pooled(guarded(operation, on_error), options)

    def split_by(
        self,
        key: Callable[[Any], Any],
        labels: Iterable[Any],
        *,
        other: str = "raise",
        capacity: int | None = None,
        on_error: Policy | str | None = None,
        name: str | None = None,
    ) -> dict[Any, Self]:
        """Return a branch for each of `labels`: the items for which `key` gives it.

        Branches may do anything, batch and shuffle as well, and are joined, or read, like those of
        `tee`. Where they only treat each item by itself `route` keeps the order.

        Args:
            key: called with each item.
            labels: all that it may give.
            other: ``"raise"``: any other label is an error; ``"drop"``: such items are counted and
                left out.
            capacity: as for `tee`.
            on_error: what becomes of an item for which `key` raises, as for `map`.
            name: how the stage is called in messages and statistics.

        Example:
            >>> import splitpipe as sp
            >>> parts = sp.Pipeline(range(5)).split_by(lambda x: x % 2 == 0, [True, False])
            >>> list(parts[True]), list(parts[False])
            ([0, 2, 4], [1, 3])
        """
        choices = tuple(labels)
        if other not in ("raise", "drop") or not choices:
            raise GraphError("split_by needs at least one label, and other='raise' or 'drop'")
        operation = guarded(
            stages.Label(function_of("split_by", key), choices, other == "drop"), on_error
        )
        labelled = self._with(operation, name, StageOptions(capacity=capacity))
        return {label: labelled._with(stages.Pick(label)) for label in choices}

    def cache(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int | None = None,
        full: str = "raise",
        **options: Unpack[StreamOptions],
    ) -> Self:
        """Make the items of the first epoch once, and give them again in every other one.

        What lies before it is always in its first epoch: random stages there draw the same numbers
        every time. Put `shuffle` and random stages behind it.

        Args:
            directory: keeps them in a file there, for every run of the same graph: its name is a
                fingerprint of the stages and the source, so that a changed function is another
                file. None: in memory, pickled, for the epochs of one loader.
            max_bytes: most that is kept; None for any number.
            full: what happens when there is more: ``"raise"`` (`CacheFull`), or ``"stop"``: nothing
                is kept, and every epoch makes its items anew.
            options: see `StreamOptions`.

        Raises:
            GraphError: something in the graph cannot be identified; the message says what.

        Example:
            >>> import splitpipe as sp
            >>> made = []
            >>> def slow(x):
            ...     made.append(x)
            ...     return x * x
            >>> loader = sp.Pipeline(range(3)).map(slow).cache().loader(executor="inline", epochs=2)
            >>> list(loader), len(made)
            ([0, 1, 4, 0, 1, 4], 3)
        """
        mark = None if directory is None else self._fingerprint()
        kept = None if directory is None else os.fspath(directory)
        return self._stream(stages.Cache(kept, mark, max_bytes, full), options)

    def skip(self, count: int, *, name: str | None = None) -> Self:
        """Leave out the first `count` items of every epoch; they are made, and counted."""
        return self._with(stages.Skip(count), name)

    def take(self, count: int, *, name: str | None = None) -> Self:
        """End every epoch after `count` items."""
        return self._with(stages.Take(count), name, StageOptions())
