"""Datasets that are held open, for whoever looks at them again and again.

Responsible for: `Held`, which keeps a few pinned datasets open by what they are made of.

Rules:
- what is in use is never closed: it is closed when the last user is done, once it was dropped;
- two that ask for the same dataset at once may both open it; one of the two stays.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from splitpipe.server.catalog.snapshot import SnapshotDataset

__all__ = ["Held", "Pinned"]

_MOST: Final = 8


@dataclass(slots=True)
class Pinned:
    """A dataset, pinned and open.

    Attributes:
        snapshot: of it, as JSON.
        dataset: its records.
    """

    snapshot: dict[str, Any]
    dataset: SnapshotDataset
    users: int = 0
    dropped: bool = False


class Held:
    """A few datasets that stay open."""

    def __init__(self) -> None:
        self._held: OrderedDict[Hashable, Pinned] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def use(self, key: Hashable, open_one: Callable[[], Pinned]) -> Iterator[Pinned]:
        """A dataset for a block: the one that is open, or a new one."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
                found.users += 1
        if found is None:
            found = open_one()
            found.users = 1
            self._keep(key, found)
        try:
            yield found
        finally:
            with self._lock:
                found.users -= 1
                last = found.dropped and not found.users
            if last:
                found.dataset.close()

    def _keep(self, key: Hashable, pinned: Pinned) -> None:
        with self._lock:
            dropped = [self._held.pop(key)] if key in self._held else []
            self._held[key] = pinned
            while len(self._held) > _MOST:
                dropped.append(self._held.popitem(last=False)[1])
            for one in dropped:
                one.dropped = True
            idle = [one for one in dropped if not one.users]
        for one in idle:
            one.dataset.close()

    def close(self) -> None:
        """Let go of all; what is in use is closed by its last user."""
        with self._lock:
            dropped = list(self._held.values())
            self._held.clear()
            for one in dropped:
                one.dropped = True
            idle = [one for one in dropped if not one.users]
        for one in idle:
            one.dataset.close()
