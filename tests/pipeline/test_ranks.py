"""Which rank this is: what was said, what launchers set, and groups that see the same data."""

from __future__ import annotations

from typing import Any

import pytest

import splitpipe as sp
from splitpipe.pipeline.ranks import VARIABLES, find_rank


class TestEnvironment:
    @pytest.mark.parametrize("names", VARIABLES, ids=lambda names: names[0])
    def test_of_each_launcher(self, names: tuple[str, str]) -> None:
        assert find_rank(environ={names[0]: "3", names[1]: "5"}) == (3, 5)

    @pytest.mark.parametrize("number", range(len(VARIABLES)))
    def test_the_first_launcher_goes_before_the_others(self, number: int) -> None:
        environ: dict[str, str] = {}
        for at, (rank, world) in enumerate(VARIABLES[number:]):
            environ |= {rank: str(at), world: str(10 + at)}
        assert find_rank(environ=environ) == (0, 10)

    def test_none_is_one_rank(self) -> None:
        assert find_rank(environ={}) == (0, 1)
        assert find_rank(environ={"RANK": "", "WORLD_SIZE": ""}) == (0, 1)

    @pytest.mark.parametrize("names", VARIABLES, ids=lambda names: names[0])
    @pytest.mark.parametrize("half", [0, 1])
    def test_half_a_pair_is_refused(self, names: tuple[str, str], half: int) -> None:
        with pytest.raises(sp.GraphError) as error:
            find_rank(environ={names[half]: "1"})
        assert f"{names[half]} is set to '1' and {names[1 - half]} is not" in str(error.value)

    def test_half_a_pair_behind_a_whole_one_does_not_matter(self) -> None:
        environ = {"RANK": "1", "WORLD_SIZE": "2", "SLURM_NTASKS": "7"}
        assert find_rank(environ=environ) == (1, 2)

    @pytest.mark.parametrize(
        ("rank", "world", "message"),
        [
            ("4", "4", "RANK is 4 and WORLD_SIZE is 4"),
            ("x", "4", "RANK must be a whole number of at least 0, not 'x'"),
            ("-1", "4", "RANK must be a whole number of at least 0, not '-1'"),
            ("0", "0", "WORLD_SIZE must be a whole number of at least 1, not '0'"),
            ("0", "2.0", "WORLD_SIZE must be a whole number of at least 1, not '2.0'"),
        ],
    )
    def test_nonsense_is_refused(self, rank: str, world: str, message: str) -> None:
        with pytest.raises(sp.GraphError, match=message):
            find_rank(environ={"RANK": rank, "WORLD_SIZE": world})

    def test_is_read_where_the_pipeline_is_described(self, monkeypatch: Any) -> None:
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "3")
        pipe = sp.Pipeline(range(9)).shard()
        monkeypatch.setenv("RANK", "2")
        assert list(pipe) == [1, 4, 7]


class TestArguments:
    def test_go_before_the_environment(self) -> None:
        assert find_rank(0, 2, environ={"RANK": "1", "WORLD_SIZE": "4"}) == (0, 2)

    @pytest.mark.parametrize(
        ("rank", "world", "message"),
        [
            (1, None, "given rank= without world_size="),
            (None, 2, "given world_size= without rank="),
            (2, 2, "there is no rank 2 of 2"),
            (-1, 2, "rank must be a whole number of at least 0, not -1"),
            (0, 0, "world_size must be a whole number of at least 1, not 0"),
            (0.0, 2, "rank must be a whole number"),
            (True, 2, "rank must be a whole number"),
        ],
    )
    def test_nonsense_is_refused(self, rank: Any, world: Any, message: str) -> None:
        with pytest.raises(sp.GraphError, match=message):
            sp.Pipeline(range(3)).shard(rank, world)

    def test_ends_are_one_of_three(self) -> None:
        with pytest.raises(sp.GraphError, match="ends must be one of drop, pad, uneven, not 'cut'"):
            sp.Pipeline(range(3)).shard(0, 1, ends="cut")


class TestGroups:
    @pytest.mark.parametrize("replicate", [1, 2, 3, 6])
    def test_consecutive_and_strided(self, replicate: int) -> None:
        groups = 6 // replicate
        for rank in range(6):
            assert find_rank(rank, 6, replicate=replicate) == (rank // replicate, groups)
            strided = find_rank(rank, 6, replicate=replicate, group="strided")
            assert strided == (rank % groups, groups)

    def test_of_a_mesh(self) -> None:
        # pipeline parallel outside, then data, then tensor parallel
        mesh = [(rank // 2) % 2 for rank in range(8)]
        assert [find_rank(rank, 8, group=mesh)[0] for rank in range(8)] == [0, 0, 1, 1, 0, 0, 1, 1]
        assert find_rank(7, 8, group=mesh, replicate=4) == (1, 2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"replicate": 4}, "6 ranks are no groups of 4"),
            ({"replicate": 0}, "replicate must be a whole number of at least 1"),
            ({"group": "random"}, "group must be 'consecutive' or 'strided', or a number"),
            ({"group": [0, 1]}, "group has 2 numbers for 6 ranks"),
            ({"group": [0, 0, 0, 2, 2, 2]}, "no rank is in group 1 of 3"),
            ({"group": [0, 0, 1, 1, 2, -2]}, "each of group must be a whole number"),
            ({"group": [0, 0, 1, 1, 2, 2], "replicate": 3}, "do not fit to replicate=3"),
        ],
    )
    def test_that_do_not_come_out_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(sp.GraphError, match=message):
            sp.Pipeline(range(3)).shard(0, 6, **options)

    def test_see_the_same_data(self) -> None:
        pipe = sp.Pipeline(range(12), shuffle="global", seed=1)
        seen = [list(pipe.shard(rank, 4, replicate=2)) for rank in range(4)]
        assert seen[0] == seen[1]
        assert seen[2] == seen[3]
        assert sorted(seen[0] + seen[2]) == list(range(12))
