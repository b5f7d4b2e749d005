"""What the server remembers: one database, SQLite unless the operator names another.

Responsible for: the tables (`tables.py`), opening a database and its transactions (`database.py`).
What a row means is the business of the room that writes it.

Rules:
- an answer is given after what it promises was committed, so that a server that is killed and
  started again goes on where every client believes it to be;
- a database of a newer version is refused, untouched;
- no secret is stored in the clear.
"""

from __future__ import annotations

from splitpipe.server.state.database import Database, new_id, now_s, open_database

__all__ = ["Database", "new_id", "now_s", "open_database"]
