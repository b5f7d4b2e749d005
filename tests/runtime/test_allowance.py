"""What a process may use, on machines built out of files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from splitpipe.runtime.allowance import Allowance, Node, allowance, lay_out, threads_each
from splitpipe.runtime.maththreads import VARIABLES, can_tell, decided, limit_threads

MEMINFO = "MemTotal:       16384 kB\nMemFree:         100 kB\n"
V2 = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_CPU = "33 24 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY = "34 24 0:31 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
UNLIMITED = "9223372036854771712\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_nothing_known_bounds_nothing(tmp_path: Path) -> None:
    assert allowance(tmp_path, {0, 2}) == Allowance(frozenset({0, 2}))
    assert allowance(tmp_path, {0, 2}).cores == 2


def test_version_2(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "proc/self/mountinfo": V2,
            "proc/meminfo": MEMINFO,
            "sys/fs/cgroup/cgroup.procs": "",
            "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/a/memory.max": "max\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/b/memory.max": "4096000\n",
        },
    )
    found = allowance(root, range_of(8))
    assert found.quota == 1.5  # a group is bounded by those around it
    assert found.cores == 1.5
    assert found.memory_nbytes == 4096000


def test_version_2_in_a_name_space_of_its_own(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/memory.max": "1000\n",
        },
    )
    found = allowance(root, range_of(2))
    assert (found.quota, found.cores, found.memory_nbytes) == (4, 2, 1000)


@pytest.mark.parametrize("inside", ["/docker/abc", "/"])
def test_version_1(tmp_path: Path, inside: str) -> None:
    """In a container only its own part of the tree is mounted, as its top."""
    group = "" if inside == "/docker/abc" else "docker/abc/"
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=x:/y\n",
            "proc/self/mountinfo": V1_CPU.format(root=inside) + V1_MEMORY.format(root=inside),
            "proc/meminfo": MEMINFO,
            f"sys/fs/cgroup/cpu,cpuacct/{group}cpu.cfs_quota_us": "250000\n",
            f"sys/fs/cgroup/cpu,cpuacct/{group}cpu.cfs_period_us": "100000\n",
            f"sys/fs/cgroup/memory/{group}memory.limit_in_bytes": UNLIMITED,
        },
    )
    found = allowance(root, range_of(8))
    assert found.quota == 2.5
    assert found.memory_nbytes == 16384 << 10


def test_version_1_without_a_quota(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/\n",
            "proc/self/mountinfo": V1_CPU.format(root="/"),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert allowance(root, range_of(8)).quota is None


@pytest.mark.parametrize("text", ["", "max", "0 0", "x y", "1 2 3", "\0\xff"])
def test_what_makes_no_sense_bounds_nothing(tmp_path: Path, text: str) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": f"0::/\n{text}\n::\n",
            "proc/self/mountinfo": V2 + text + "\n - cgroup2\n1 2 3 - cgroup2 a b\n",
            "proc/meminfo": f"MemTotal: {text}\n",
            "sys/fs/cgroup/cpu.max": text,
            "sys/fs/cgroup/memory.max": text,
            "sys/devices/system/node/node0/cpulist": text,
            "sys/devices/system/node/nodeX/cpulist": "0-3",
        },
    )
    found = allowance(root, {0})
    assert (found.quota, found.memory_nbytes, found.nodes) == (None, None, ())


def test_nodes_are_those_with_cpus_that_may_be_used(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "sys/devices/system/node/node0/cpulist": "0-3,8-11\n",
            "sys/devices/system/node/node1/cpulist": "4-7\n",
            "sys/devices/system/node/node2/cpulist": "\n",
            "sys/devices/system/node/node10/cpulist": "12\n",
            "sys/devices/system/node/online": "0-2\n",
        },
    )
    found = allowance(root, {1, 2, 9, 12})
    assert found.nodes == (Node(0, frozenset({1, 2, 9})), Node(10, frozenset({12})))


def test_this_machine_tells_something() -> None:
    found = allowance()
    assert found.cpus
    assert found.cores > 0
    if sys.platform == "linux":
        assert found.cpus == os.sched_getaffinity(0)
        assert found.memory_nbytes


@hypothesis.given(
    cpus=st.integers(1, 64),
    quota=st.none() | st.floats(0.1, 100),
    workers=st.integers(1, 100),
    nodes=st.integers(0, 4),
)
def test_workers_share_what_there_is(
    cpus: int, quota: float | None, workers: int, nodes: int
) -> None:
    parts = [frozenset(range(n, cpus, nodes)) for n in range(nodes)]
    allowed = Allowance(
        frozenset(range(cpus)),
        quota,
        nodes=tuple(Node(n, part) for n, part in enumerate(parts) if part),
    )
    each = threads_each(allowed, workers)
    assert each == 1 or each * workers <= allowed.cores
    places = lay_out(allowed, workers)
    assert len(places) == workers
    if len(allowed.nodes) < 2 or workers == 1:
        assert set(places) == {None}
    else:
        counts = [places.count(node.cpus) for node in allowed.nodes]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == workers


def range_of(count: int) -> set[int]:
    return set(range(count))


# --- threads of numeric libraries -------------------------------------------------------------


def test_variables_are_set_for_what_is_loaded_later() -> None:
    environment: dict[str, str] = {}
    program = f"""
import os
from splitpipe.runtime.maththreads import limit_threads
assert limit_threads(3)
assert all(os.environ[name] == "3" for name in {VARIABLES!r})
"""
    quiet = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    subprocess.run([sys.executable, "-c", program], check=True, env=quiet)
    assert decided(environment) is None


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_decided_stays(name: str) -> None:
    environment = {name: "7"}
    assert decided(environment) == name
    assert not limit_threads(3, environment)
    assert environment == {name: "7"}


@pytest.mark.skipif(not can_tell(), reason="threadpoolctl is not installed")
def test_libraries_that_are_loaded_already_are_told() -> None:
    program = """
import numpy as np, threadpoolctl
from splitpipe.runtime.maththreads import limit_threads
limit_threads(1)
np.ones((4, 4)) @ np.ones((4, 4))
print(sorted({one["num_threads"] for one in threadpoolctl.threadpool_info()}))
"""
    quiet = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, env=quiet, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[1]"
