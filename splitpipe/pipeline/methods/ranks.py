"""Stages that give every rank of a distributed run its part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from splitpipe.pipeline.balancing import Balancing
from splitpipe.pipeline.costs import Cost, check_cost
from splitpipe.pipeline.methods.base import Methods
from splitpipe.pipeline.ranks import find_rank
from splitpipe.pipeline.stages import Balance, Shard

__all__ = ["RankMethods"]


class RankMethods(Methods):
    """Methods of a `Pipeline` for runs on several ranks."""

    def shard(
        self,
        rank: int | None = None,
        world_size: int | None = None,
        *,
        replicate: int = 1,
        group: str | Sequence[int] = "consecutive",
        ends: str = "drop",
        name: str | None = None,
    ) -> Self:
        """Keep the part of one rank: every `world_size`-th item, the `rank`-th first.

        All ranks deal out one sequence, round-robin: another number of ranks changes who gets an
        item, and never which items come next. What random stages draw for an item does not depend
        on it either.

        Right behind a source with random access, and behind stages that make one item of one (or a
        batch of known size) it costs nothing: a rank reads its own part alone. Behind anything else
        every rank makes the whole stream and keeps its part; `explain` says so.

        Args:
            rank: which this is; None: as the launcher says in the environment (torchrun, Open MPI,
                MPICH, Slurm, in this order); no launcher is rank 0 of 1.
            world_size: how many there are; None like `rank`.
            replicate: how many ranks see the same data, as in tensor and pipeline parallel runs.
            group: which of them these are: ``"consecutive"`` ones, ``"strided"`` ones, or the
                number of its group for every rank.
            ends: what becomes of a last round that is not full. ``"drop"``: it is nobody's;
                ``"pad"``: ranks without an item in it get one of the beginning again; ``"uneven"``:
                some ranks have one item more than others.
            name: how the stage is called in messages and statistics.

        Raises:
            GraphError: half a pair is given or set, there is no such rank, or groups do not come
                out even.

        Example:
            >>> import splitpipe as sp
            >>> [list(sp.Pipeline(range(7)).shard(rank, 3, ends="pad")) for rank in range(3)]
            [[0, 3, 6], [1, 4, 0], [2, 5, 1]]
        """
        own, world = find_rank(rank, world_size, replicate=replicate, group=group)
        return self._with(Shard(own, world, ends), name)

    def balance(
        self,
        cost: Cost = None,
        *,
        window: int = 1,
        size: int | None = None,
        steps: str = "similar",
        method: str = "largest-first",
    ) -> Self:
        """Spread the samples of each step over the ranks, so that it costs all of them the same.

        It stands between a source with random access and `batch`, beside `shard`. Nothing is read:
        every rank makes the plan for itself, from the costs alone, and comes to the same one. Every
        rank has as many samples as without it.

        Args:
            cost: of a record: the name of a column of numbers, or of a column whose length in the
                index it is; a number for every record; a function of its index; None: the length
                of the record in the index.
            window: steps that are planned together. With 1 every step has the samples that it would
                have anyhow; with more they are divided anew among the steps of a window, which
                evens out what one step alone cannot.
            size: samples of a rank in a step; None: those of the `batch` behind it.
            steps: for a window of several: ``"similar"``: most samples of a step cost about the
                same: even among ranks however long the tail is, but not all steps cost the same;
                ``"even"``: each step costs about as much as another.
            method: how the samples of a step are divided: ``"largest-first"``, or
                ``"differencing"`` (Karmarkar and Karp); see `splitpipe.pipeline.partition`.

        Raises:
            GraphError: a value means nothing. Where it cannot be done is said when the pipeline is
                run.

        Example:
            >>> import splitpipe as sp
            >>> costs = [9, 1, 8, 2, 7, 3, 6, 4]
            >>> pipe = sp.Pipeline(costs).balance(costs)
            >>> [[b.tolist() for b in pipe.shard(rank, 2).batch(2)] for rank in range(2)]
            [[[9, 1], [7, 3]], [[8, 2], [6, 4]]]
        """
        checked = check_cost(cost)
        Balancing(checked, 1 if size is None else size, window, steps, method)
        return self._with(Balance(checked, window, size, steps, method))
