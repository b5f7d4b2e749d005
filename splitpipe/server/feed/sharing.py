"""Which batches of the stream are whose: ranks, replication groups, ends, cursors.

Responsible for: `Division`, arithmetic between the numbers of a cursor (0, 1, 2, ... for every
cursor) and those of the one stream that is made for all of them.

Rules:
- round `n` of the stream is its batches ``n * groups ... (n + 1) * groups - 1``; batch `n` of group
  `g` is ``n * groups + g``. So each sample is made once for all ranks, and the order of the stream
  depends on nothing that is said here;
- without replication groups every rank is a group of its own; ranks of one group get the same
  batches, each with a cursor of its own;
- the last round may not be whole. `uneven`: groups that have a batch of it get it; `drop`: nobody
  does; `pad`: groups without one get one of the others', in turn. With `drop` a round is granted
  only once it is known to be whole;
- mode `share`: all clients of a rank share its cursor; `follow`: every client has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Division"]


@dataclass(frozen=True, slots=True)
class Division:
    """How a stream is divided.

    Args:
        world_size: how many ranks there are.
        replication_groups: ranks that get the same batches; None: no two do.
        ends: what becomes of a last round that is not whole.
        mode: whether clients of a rank share its batches, or each gets all of them.

    Example:
        >>> two = Division(world_size=2, ends="pad")
        >>> two.number_of_groups, two.group(1), [two.sequence(n, 1, total=5) for n in range(3)]
        (2, 1, [1, 3, 4])
        >>> two.total(5, 1), Division(world_size=2, ends="drop").total(5, 1)
        (3, 2)
        >>> two.cursor(1, "alice"), Division(mode="follow").cursor(0, "bob")
        ('1', '0/bob')
    """

    world_size: int = 1
    replication_groups: Sequence[Sequence[int]] | None = None
    ends: Literal["uneven", "drop", "pad"] = "uneven"
    mode: Literal["share", "follow"] = "share"

    @property
    def number_of_groups(self) -> int:
        """How many batches make a round."""
        return len(self.replication_groups) if self.replication_groups else self.world_size

    def group(self, rank: int) -> int:
        """The group of a rank."""
        if not 0 <= rank < self.world_size:
            raise ValueError(f"there is no rank {rank} among {self.world_size}")
        if not self.replication_groups:
            return rank
        for group, ranks in enumerate(self.replication_groups):
            if rank in ranks:
                return group
        raise ValueError(f"rank {rank} is in no replication group")

    def cursor(self, rank: int, client: str) -> str:
        """The name of the cursor that a client of a rank reads by."""
        return f"{rank}/{client}" if self.mode == "follow" else str(rank)

    def rank(self, cursor: str) -> int:
        """The rank of a cursor, by its name."""
        return int(cursor.partition("/")[0])

    def sequence(self, number: int, group: int, *, total: int | None) -> int:
        """Where batch `number` of a group lies in the stream, whose end may be known."""
        groups = self.number_of_groups
        sequence = number * groups + group
        if total is not None and self.ends == "pad" and sequence >= total:
            return number * groups + group % (total - number * groups)
        return sequence

    def padded(self, number: int, group: int, *, total: int | None) -> bool:
        """Whether this batch is another group's, given again to fill the last round."""
        return total is not None and number * self.number_of_groups + group >= total

    def total(self, total: int, group: int) -> int:
        """How many batches a group gets of a stream of `total`."""
        whole, rest = divmod(total, self.number_of_groups)
        if self.ends == "drop":
            return whole
        if self.ends == "pad":
            return whole + (rest > 0)
        return whole + (group < rest)

    def of_all_ranks(self, total: int) -> int:
        """How many batches all ranks together get of a stream of `total`.

        Example:
            >>> Division(world_size=4, replication_groups=[[0, 1], [2, 3]]).of_all_ranks(5)
            10
            >>> Division(world_size=2, ends="drop").of_all_ranks(5)
            4
        """
        groups = self.replication_groups or [[rank] for rank in range(self.world_size)]
        return sum(len(ranks) * self.total(total, at) for at, ranks in enumerate(groups))

    def available(self, made: int, group: int, *, total: int | None) -> int:
        """How many batches a group may have been given when `made` of the stream are there."""
        if total is not None and made >= total:
            return self.total(total, group)
        whole, rest = divmod(made, self.number_of_groups)
        return whole if self.ends == "drop" else whole + (group < rest)

    def made_for(self, number: int, group: int) -> int:
        """How many batches of the stream have to be there before batch `number` may be granted."""
        groups = self.number_of_groups
        return (number + 1) * groups if self.ends == "drop" else number * groups + group + 1
