"""Where and with what a run was made.

Responsible for: the machine, the versions, and the state of both that can spoil a figure.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["describe", "versions"]


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _filesystem(directory: Path) -> str:
    """Type of the file system that holds `directory`, from the longest matching mount."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, point, name, *_ = line.split()
        if str(directory.resolve()).startswith(point) and len(point) > len(best):
            best, kind = point, name
    return kind


def _revision() -> str:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Installed versions; what is absent is left out."""
    found = {}
    for name in sorted(set(distributions)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe(directory: Path) -> dict[str, Any]:
    """Facts of the machine, for the head of a report."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": _memory_gib(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "filesystem": _filesystem(directory),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "revision": _revision(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
