"""What the engine must know after it died.

Responsible for: `Journal`: the rows of an iteration's cursors and checkpoints, read when an engine
begins and written before it answers.

Rules:
- one transaction for all that one turn of the engine changed: whoever waits for an answer waits for
  a part of a commit;
- a cursor is one row, written as a whole: there is no log that has to be gone through;
- a commit survives the death of every process at once. The last ones may be lost when the machine
  loses power, unless the database was opened as durable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select

from splitpipe.server.feed.cursor import Cursor
from splitpipe.server.state import Database, now_s
from splitpipe.server.state.tables import checkpoints, cursors

__all__ = ["Journal"]

_WRITE = (
    "INSERT INTO cursors (iteration_id, name, state, updated_at) "
    "VALUES (:iteration, :name, :state, :now) "
    "ON CONFLICT (iteration_id, name) DO UPDATE SET state = excluded.state, "
    "updated_at = excluded.updated_at"
)
_CHECKPOINT = (
    "INSERT INTO checkpoints (iteration_id, sequence, state) VALUES (:iteration, :sequence, :state)"
    " ON CONFLICT (iteration_id, sequence) DO UPDATE SET state = excluded.state"
)


class Journal:
    """The rows of one iteration.

    Args:
        database: where they are. It stays the caller's.
        iteration: whose they are.
    """

    def __init__(self, database: Database, iteration: str) -> None:
        self._database = database
        self._iteration = iteration

    def cursors(self) -> dict[str, Any]:
        """The states of all cursors, by name."""
        wanted = select(cursors.c.name, cursors.c.state).where(
            cursors.c.iteration_id == self._iteration
        )
        with self._database.read() as connection:
            return {row.name: row.state for row in connection.execute(wanted)}

    def checkpoints(self) -> dict[int, Any]:
        """States of the stream, by the number of the batch that follows."""
        wanted = select(checkpoints.c.sequence, checkpoints.c.state).where(
            checkpoints.c.iteration_id == self._iteration
        )
        with self._database.read() as connection:
            return {int(sequence): state for sequence, state in connection.execute(wanted)}

    def write(self, changed: Iterable[Cursor], states: Iterable[tuple[int, Any]] = ()) -> None:
        """Write these down: cursors, and checkpoints of the stream."""
        now = now_s()
        rows = [
            {
                "iteration": self._iteration,
                "name": cursor.name,
                "state": cursor.ledger.text,
                "now": now,
            }
            for cursor in changed
        ]
        points = [
            {"iteration": self._iteration, "sequence": sequence, "state": json.dumps(state)}
            for sequence, state in states
        ]
        work = [(_WRITE, rows), (_CHECKPOINT, points)]
        if rows or points:
            self._database.write_rows([one for one in work if one[1]])
