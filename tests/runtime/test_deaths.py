"""When deaths are made good, and when they are enough: budgets, poison, memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.runtime.deaths import Death, Record
from splitpipe.runtime.memory import MemoryWatch
from splitpipe.runtime.notes import Site
from tests.runtime.comparing import read
from tests.runtime.dying import Deaths, deaths_of

FORK: dict[str, Any] = {"start_method": "fork"}


def death(site: Site | None = None, **changes: Any) -> Death:
    return Death(
        **{"task": 0, "name": "f", "index": 0, "pid": 1, "exitcode": -9, "site": site, **changes}
    )


class TestRecord:
    def test_deaths_in_a_row_are_counted(self) -> None:
        record = Record(2, ())
        assert [record.note([death()], progress=n) for n in range(20)] == [None] * 20
        assert [record.note([death()], progress=19) for _ in range(1)] == [None]
        error = record.note([death()], progress=19)
        assert isinstance(error, sp.WorkerDied)
        assert "restarts=2" in str(error)

    def test_any_number_of_them(self) -> None:
        record = Record(None, ())
        assert all(record.note([death()], progress=0) is None for _ in range(100))
        assert record.deaths[0] == 100

    def test_none(self) -> None:
        error = Record(0, ()).note([death()], progress=0)
        assert type(error) is sp.WorkerDied
        assert str(error) == death().text

    def test_who_leaves_before_it_began_would_do_so_again(self) -> None:
        assert Record(9, ()).note([death(began=False)], progress=0) is None
        error = Record(9, ()).note([death(began=False, exitcode=1)], progress=0)
        assert "guarded" in str(error)

    def test_what_may_be_the_same_item(self) -> None:
        known = Site(0, epoch=1, start=10, stop=20, position=13)
        assert known.may_be(known)
        assert Site(0, 1, 10, 20).may_be(known)
        assert Site(0, 1, 0, None).may_be(known)
        assert not Site(0, 1, 14, 20).may_be(known)
        assert not Site(0, 2, 10, 20).may_be(known)
        assert not Site(1, 1, 10, 20).may_be(known)
        assert not Site(0, 1, 10, 20, position=14).may_be(known)


def poisoned(
    tmp_path: Path, at: int, **options: Any
) -> tuple[list[Any], BaseException | None, Deaths]:
    deaths = Deaths(tmp_path, [at], times=100)
    pipe = sp.Pipeline(range(200), shuffle="global", seed=4).map(abs, name="load")
    pipe = pipe.map(deaths.strike, workers=2, name="decode")
    got, error = read(pipe.loader(**FORK, **options))
    return got, error, deaths


@pytest.mark.parametrize("restarts", [3, None])
def test_an_item_that_ends_three_workers_is_named(tmp_path: Path, restarts: int | None) -> None:
    truth = list(sp.Pipeline(range(200), shuffle="global", seed=4))
    got, error, deaths = poisoned(tmp_path, truth[77], restarts=restarts)
    assert isinstance(error, sp.PoisonRecord)
    assert got == truth[: len(got)]
    assert len(got) <= 77
    assert deaths.count == 3
    text = str(error)
    assert f"record {truth[77]} of range(0, 200)" in text
    assert "position 77 of epoch 0 of source 'source'" in text
    assert "in stage 'decode'" in text
    assert "SIGKILL" in text


def test_one_that_ends_two_is_not(tmp_path: Path) -> None:
    # Apart: a death of which the item is not known counts for all items of its unit.
    deaths = Deaths(tmp_path, [40, 95, 150], times=2)
    with sp.Pipeline(range(200)).map(deaths.strike, workers=2).loader(**FORK) as loader:
        assert list(loader) == list(range(200))
    assert deaths.count == 6
    assert deaths_of(loader) >= 3


@pytest.mark.parametrize("way", ["in its batch", "of a task", "of a pool behind a task"])
def test_poison_is_found_wherever_it_is(tmp_path: Path, way: str) -> None:
    deaths = Deaths(tmp_path, [42], times=100)
    if way == "in its batch":
        pipe = sp.Pipeline(range(200)).map(deaths.strike, workers=2).batch(16, collate=list)
        said = "record 42 of"
    elif way == "of a task":
        pipe = sp.Pipeline(range(200)).through(deaths.through, workers=1)
        said = "record 42 of"
    else:
        begin = sp.Pipeline(lambda: iter(range(200))).map(abs, workers=1)
        pipe = begin.map(deaths.strike, workers=2, name="decode")
        said = "an input item of 'decode' (position 42 of epoch 0)"
    _, error = read(pipe.loader(**FORK))
    assert isinstance(error, sp.PoisonRecord)
    assert said in str(error)
    assert deaths.count == 3


def test_a_stage_that_always_dies_ends_the_run(tmp_path: Path) -> None:
    """Also where nobody can tell which item it is."""
    deaths = Deaths(tmp_path, [0], times=100)
    pipes = {
        "a": sp.Pipeline(lambda: iter(range(50))).map(deaths.strike, workers=1),
    }
    pipes["b"] = pipes["a"].map(abs, workers=1)
    loaders = sp.run(pipes, restarts=2, **FORK)
    with loaders["a"], loaders["b"], pytest.raises(sp.WorkerDied, match=r"number 3.*restarts=2"):
        next(loaders["a"])
    assert deaths.count == 3


def test_none_is_made_good_where_nobody_wants_it(tmp_path: Path) -> None:
    _, error, deaths = poisoned(tmp_path, 9, restarts=0)
    assert type(error) is sp.WorkerDied
    assert deaths.count == 1
    assert re.search(r"worker \d of stage 'load > decode' .* was killed by SIGKILL", str(error))


@pytest.mark.parametrize("value", [-1, 1.5, True, "3"])
def test_a_budget_is_a_number(value: Any) -> None:
    with pytest.raises(sp.GraphError, match="restarts"):
        sp.Pipeline(range(3)).loader(restarts=value)


class TestMemory:
    """Counters of kills, on machines that are made of files."""

    def group(self, root: Path, *, version: int, kills: int) -> None:
        (root / "proc/self").mkdir(parents=True, exist_ok=True)
        if version == 2:
            folder = root / "sys/fs/cgroup/box"
            mount = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
            own, files = "0::/box", {"memory.events": f"low 0\noom 5\noom_kill {kills}\n"}
            files |= {"memory.max": "1073741824\n", "memory.peak": "1073000000\n"}
        else:
            folder = root / "sys/fs/cgroup/memory/box"
            mount = "30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
            own = "4:memory:/box"
            files = {"memory.oom_control": f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"}
            files |= {"memory.limit_in_bytes": "1073741824\n"}
        folder.mkdir(parents=True, exist_ok=True)
        (root / "proc/self/cgroup").write_text(own + "\n")
        (root / "proc/self/mountinfo").write_text(mount + "\n")
        for name, text in files.items():
            (folder / name).write_text(text)

    @pytest.mark.parametrize("version", [1, 2])
    def test_a_kill_of_the_group_is_told(self, tmp_path: Path, version: int) -> None:
        self.group(tmp_path, version=version, kills=2)
        watch = MemoryWatch(tmp_path)
        assert watch.kills() == ""
        self.group(tmp_path, version=version, kills=3)
        said = watch.kills()
        assert said is not None
        assert "box counts 1 more" in said
        assert "limit 1,024 MiB" in said
        assert watch.kills() == ""
        text = death(memory=said).text
        assert "for want of memory" in text
        assert "prefetch" in text

    def test_the_machine_counts_too(self, tmp_path: Path) -> None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 7\n")
        watch = MemoryWatch(tmp_path)
        (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 9\n")
        assert watch.kills() == "the machine counts 2 more"

    def test_where_nothing_counts_nothing_is_said(self, tmp_path: Path) -> None:
        assert MemoryWatch(tmp_path).kills() is None
        assert "(out of memory?)" in death().text
        assert "memory" not in death(memory="").text

    def test_of_this_machine(self) -> None:
        assert MemoryWatch().kills() in ("", None) or os.path.exists("/proc/vmstat")
