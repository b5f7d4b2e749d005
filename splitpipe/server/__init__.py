"""The data service: datasets, iterations and tasks that many clients share, and a page.

Responsible for: everything that runs beside the training, on the machine that has the data. Its
rooms, from the first to the last: `settings`, `children` (what its processes have in common),
`state` (the database), `security` (who may do what), `catalog` (datasets and column sets),
`modules` (code that the operator placed there), `iterations` (what a stream is), `feed` (batches to
clients, each exactly once), `tasks` (background work), `service` (all of them together), `pages`,
`app` (HTTP).

Rules:
- importing `splitpipe` loads nothing of this package, and the client imports nothing of it;
- nothing that comes from outside is ever unpickled, and code comes from the modules folder alone;
- nothing listens beyond loopback unless the operator asked for it, and then with tokens and keys.
"""

from __future__ import annotations

__all__: list[str] = []
