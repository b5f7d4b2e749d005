"""What a forked child has to have anew.

Responsible for: the hook, and who is told: objects with locks that a thread of the parent may have
held, or with locks of the kernel that the child would share with its parent.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Renewed", "renew_in_children"]


class Renewed(Protocol):
    """Something that a forked child makes its own."""

    def renew(self) -> None:
        """Called in the child, before anything else there."""


_known: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renew_in_children(what: Renewed) -> None:
    """Have it renewed in every child that is forked as long as it lives."""
    _known.add(what)


def _after_fork_in_child() -> None:
    for what in list(_known):
        what.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
