"""What this process may use of the machine.

Responsible for: CPUs (by affinity and by the quotas of control groups), memory (what there is, and
the limits of control groups), and NUMA nodes; how workers are laid out over those.

Rules:
- what is allowed counts, not what is built in; a group is bounded by every group around it;
- everything is read below `root`, so that a test can build any machine out of files;
- what a system does not tell (macOS has no control groups) bounds nothing;
- one node is the usual machine: nothing is laid out there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Allowance", "Node", "allowance", "control_groups", "lay_out", "threads_each"]


@dataclass(frozen=True, slots=True)
class Node:
    """A NUMA node: its number, and the CPUs of it that may be used."""

    number: int
    cpus: frozenset[int]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a process may use.

    Attributes:
        cpus: numbers of the CPUs that it may run on.
        quota: CPUs' worth of time that its control groups let it have; None: no quota.
        memory_nbytes: what its control groups, or the machine, let it have; None: unknown.
        nodes: with CPUs that it may run on; none where the system does not tell.
    """

    cpus: frozenset[int]
    quota: float | None = None
    memory_nbytes: int | None = None
    nodes: tuple[Node, ...] = ()

    @property
    def cores(self) -> float:
        """How many CPUs can be busy all the time.

        Example:
            >>> Allowance(frozenset(range(8)), quota=2.5).cores
            2.5
        """
        return min(float(len(self.cpus)), self.quota or float("inf"))


def allowance(root: Path = Path("/"), cpus: Set[int] | None = None) -> Allowance:
    """Return what this process may use now.

    Args:
        root: where the file system begins.
        cpus: those that it may run on; asked of the system unless given.
    """
    usable = frozenset(_affinity() if cpus is None else cpus)
    quotas = [
        quota for folder in control_groups(root, "cpu") if (quota := _quota(folder)) is not None
    ]
    limits = [
        limit for folder in control_groups(root, "memory") if (limit := _limit(folder)) is not None
    ]
    total = _total_memory(root)
    if total is not None:
        limits.append(total)
    return Allowance(
        cpus=usable,
        quota=min(quotas, default=None),
        memory_nbytes=min(limits, default=None),
        nodes=tuple(_nodes(root, usable)),
    )


def threads_each(allowed: Allowance, workers: int) -> int:
    """Return how many threads of a numeric library each of `workers` may have, so that all of them
    together do not have more than there are CPUs.

    Example:
        >>> machine = Allowance(frozenset(range(8)))
        >>> [threads_each(machine, workers) for workers in (1, 3, 8, 20)]
        [8, 2, 1, 1]
    """
    return max(1, int(allowed.cores) // max(1, workers))


def lay_out(allowed: Allowance, workers: int) -> tuple[frozenset[int] | None, ...]:
    """Return the CPUs of each of `workers`: the nodes in turn, so that every one of them has its
    part. None: wherever the process itself may run.

    Memory comes from the node whose CPU touches it first: a worker that stays on one node fills its
    arena there. A machine with one node, or a single worker, is left alone.

    Example:
        >>> two = (Node(0, frozenset({0, 1})), Node(1, frozenset({2, 3})))
        >>> machine = Allowance(frozenset(range(4)), nodes=two)
        >>> [sorted(cpus or ()) for cpus in lay_out(machine, 3)]
        [[0, 1], [2, 3], [0, 1]]
    """
    nodes = allowed.nodes
    if len(nodes) < 2 or workers < 2:
        return (None,) * workers
    return tuple(nodes[index % len(nodes)].cpus for index in range(workers))


def _affinity() -> Set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


# --- control groups ---------------------------------------------------------------------------


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups for `controller`, outwards, in both versions."""
    places = dict(_places(root))
    for mounted, point, kind in _mounts(root):
        name = controller if kind == "cgroup" else ""
        if kind == "cgroup" and controller not in mounted[1]:
            continue
        place = places.get(name)
        if not place:
            continue
        # A container sees a part of the tree: what lies outside of it is above the mount.
        inside = os.path.relpath(place, mounted[0])
        folder = point if inside.startswith("..") else point / inside
        yield from _outwards(folder, point)


def _outwards(folder: Path, point: Path) -> Iterator[Path]:
    while True:
        yield folder
        if folder == point or point not in folder.parents:
            return
        folder = folder.parent


def _places(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each controller (nothing: version 2) and the group that this process is in."""
    for line in _lines(root / "proc/self/cgroup"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                yield controller, parts[2]


def _mounts(root: Path) -> Iterator[tuple[tuple[str, frozenset[str]], Path, str]]:
    """Yield each mounted tree of groups: its root, its options, where, and of which version."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) >= 5 and len(rest) >= 3 and rest[0] in ("cgroup", "cgroup2"):
            point = root / fields[4].lstrip("/")
            yield (fields[3], frozenset(rest[2].split(","))), point, rest[0]


def _quota(folder: Path) -> float | None:
    words = " ".join(_lines(folder / "cpu.max")).split()
    if not words:
        words = [
            *_lines(folder / "cpu.cfs_quota_us"),
            *_lines(folder / "cpu.cfs_period_us"),
        ]
    with contextlib.suppress(ValueError):
        allowed, period = (int(word) for word in words)
        if allowed > 0 and period > 0:
            return allowed / period
    return None


def _limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(ValueError):
            (limit,) = (int(word) for word in _lines(folder / name))
            return limit
    return None


# --- the machine ------------------------------------------------------------------------------


def _total_memory(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        words = rest.split()
        if name == "MemTotal" and words[1:] == ["kB"] and words[0].isdigit():
            return int(words[0]) << 10
    return None


def _nodes(root: Path, usable: Set[int]) -> Iterator[Node]:
    folder = root / "sys/devices/system/node"
    with contextlib.suppress(OSError):
        numbers = [name[4:] for name in os.listdir(folder) if name.startswith("node")]
        for number in sorted(int(text) for text in numbers if text.isdigit()):
            cpus = frozenset(_cpu_list(" ".join(_lines(folder / f"node{number}/cpulist"))))
            if cpus & usable:
                yield Node(number, cpus & usable)


def _cpu_list(text: str) -> Iterator[int]:
    """Yield the numbers of a list like ``0-3,8``."""
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            yield from range(int(first), int(last if last.isdigit() else first) + 1)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
