"""Who gets which batch, for every number of batches and groups."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from splitpipe.server.feed.ledger import Ledger
from splitpipe.server.feed.sharing import Division
from splitpipe.server.feed.status import status_of_journal


@pytest.mark.parametrize(("groups", "total"), list(itertools.product([1, 2, 3, 4], range(12))))
def test_uneven_is_a_partition(groups: int, total: int) -> None:
    division = Division(world_size=groups, ends="uneven")
    got = [
        division.sequence(number, group, total=total)
        for group in range(groups)
        for number in range(division.total(total, group))
    ]
    assert sorted(got) == list(range(total))


@pytest.mark.parametrize("ends", ["drop", "pad"])
@pytest.mark.parametrize(("groups", "total"), list(itertools.product([1, 2, 3, 4], range(12))))
def test_steps_are_equal(groups: int, total: int, ends: str) -> None:
    division = Division(world_size=groups, ends=ends)  # type: ignore[arg-type]
    steps = {division.total(total, group) for group in range(groups)}
    assert len(steps) == 1
    got = {
        division.sequence(number, group, total=total)
        for group in range(groups)
        for number in range(division.total(total, group))
    }
    if ends == "pad":
        assert got == set(range(total))
    else:
        assert got == set(range(total - total % groups))


@pytest.mark.parametrize("ends", ["uneven", "drop", "pad"])
@pytest.mark.parametrize(("groups", "total"), list(itertools.product([1, 2, 3], range(9))))
def test_what_is_granted_is_there(groups: int, total: int, ends: str) -> None:
    division = Division(world_size=groups, ends=ends)  # type: ignore[arg-type]
    for group, made in itertools.product(range(groups), range(total + 1)):
        known = total if made == total else None
        available = division.available(made, group, total=known)
        assert available <= division.total(total, group)
        for number in range(available):
            assert division.sequence(number, group, total=known) < made
        if known is None:
            assert available == sum(
                division.made_for(number, group) <= made for number in range(total + 1)
            )
        else:
            assert available == division.total(total, group)


def test_ranks_of_a_group_have_cursors_of_their_own() -> None:
    division = Division(world_size=4, replication_groups=[[0, 3], [1, 2]])
    assert division.number_of_groups == 2
    assert [division.group(rank) for rank in range(4)] == [0, 1, 1, 0]
    assert len({division.cursor(rank, "x") for rank in range(4)}) == 4
    with pytest.raises(ValueError, match="no rank 4 among 4"):
        division.group(4)
    with pytest.raises(ValueError, match="rank 1 is in no"):
        Division(world_size=2, replication_groups=[[0]]).group(1)


@pytest.mark.parametrize("ends", ["uneven", "drop", "pad"])
@pytest.mark.parametrize("groups", [None, [[0, 1], [2]]])
def test_all_ranks_are_expected_before_they_come(ends: Any, groups: Any) -> None:
    division = Division(world_size=3, replication_groups=groups, ends=ends)
    ranks = sum(division.total(7, division.group(rank)) for rank in range(3))
    assert division.of_all_ranks(7) == ranks
    ledger = Ledger()
    ledger.grant("a", 0, [(8, 0, 0)])
    states = {"0": json.loads(ledger.text)}
    status = status_of_journal(states, division, total=7, state="running")
    assert status["batches"]["expected"] == ranks
