"""Background tasks, each in a process of its own.

Responsible for: `Tasks`. In the order of a task's life: ``kinds`` prepares it (``preprocess`` one
of them), ``tasks`` keeps and follows it, ``child`` is its process seen from here, ``process`` from
within; ``work`` is what it does, by way of ``making`` and ``checking``.

`Tasks` is imported when it is first used: the process of a task needs no database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitpipe.late import late

if TYPE_CHECKING:
    from splitpipe.server.tasks.tasks import Tasks

__all__ = ["Tasks"]


__getattr__ = late(__name__, {"Tasks": ".tasks"})
