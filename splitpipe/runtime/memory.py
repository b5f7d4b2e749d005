"""Whether the system killed a process because there was no memory left.

Responsible for: `MemoryWatch`, which reads the counters of the kernel at the beginning and at a
death: those of the control groups that this process is in (both versions), and that of the whole
machine.

Rules:
- a death is called one for want of memory only where a counter says that such a kill happened;
- everything is read below `root`, so that a test can build any machine out of files; what a system
  does not tell is left unsaid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from splitpipe.runtime.allowance import control_groups

__all__ = ["MemoryWatch"]


@dataclass(frozen=True, slots=True)
class _Counter:
    """A number of kills: whose, where it stands, and by which name."""

    whose: str
    path: Path
    name: str

    def read(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            for line in self.path.read_text(encoding="utf-8").splitlines():
                words = line.split()
                if len(words) == 2 and words[0] == self.name:
                    return int(words[1])
        return None


class MemoryWatch:
    """The kills for want of memory since this object was made, or since it was last asked.

    Args:
        root: where the file system begins.

    Example:
        >>> MemoryWatch().kills() or "none"
        'none'
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._counters = list(_counters(root))
        self._seen = [counter.read() for counter in self._counters]

    def kills(self) -> str | None:
        """Return in words which kills there were since the last look: empty for none, None where
        nobody counts them.
        """
        if all(seen is None for seen in self._seen):
            return None
        found = []
        for number, counter in enumerate(self._counters):
            before, now = self._seen[number], counter.read()
            self._seen[number] = now
            if before is not None and now is not None and now > before:
                found.append(f"{counter.whose} counts {now - before} more{_limits(counter.path)}")
        return "; ".join(found)


def _counters(root: Path) -> Iterator[_Counter]:
    for folder in control_groups(root, "memory"):
        for name in ("memory.events", "memory.oom_control"):
            if (folder / name).exists():
                whose = f"the control group {'/' + str(folder.relative_to(root))}"
                yield _Counter(whose, folder / name, "oom_kill")
    yield _Counter("the machine", root / "proc/vmstat", "oom_kill")


def _limits(counter: Path) -> str:
    """Return what is known of the memory of a group."""
    folder, parts = counter.parent, []
    for word, names in (
        ("limit", ("memory.max", "memory.limit_in_bytes")),
        ("peak", ("memory.peak", "memory.max_usage_in_bytes")),
    ):
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                nbytes = int((folder / name).read_text(encoding="utf-8"))
                parts.append(f"{word} {nbytes / 2**20:,.0f} MiB ({name})")
                break
    return f": {', '.join(parts)}" if parts else ""
