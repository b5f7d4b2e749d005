"""Ray Data: datasets of ours as datasets of Ray, and the other way round.

Responsible for: the names that users take, and for saying which extra brings Ray. ``source`` reads,
``sink`` writes, ``blocks`` says which column becomes what. Needs the extra ``ray``.

Example:
    >>> import tempfile, splitpipe as sp
    >>> from splitpipe.integrations import ray_data
    >>> path = tempfile.mkdtemp()
    >>> sp.write_split_data(path, [b"a", b"b", b"c"])
    >>> tasks = ray_data.Datasource(sp.open_dataset(path)).get_read_tasks(2)
    >>> [task.metadata.num_rows for task in tasks]
    [1, 2]
"""

from __future__ import annotations

from splitpipe.integrations.extras import imported

# Everything below is of no use without it, and would say so less clearly.
imported("ray.data", extra="ray", by="handing data to Ray and taking it back")

from splitpipe.integrations.ray_data.sink import Datasink, from_ray  # noqa: E402
from splitpipe.integrations.ray_data.source import Datasource, to_ray  # noqa: E402

__all__ = ["Datasink", "Datasource", "from_ray", "to_ray"]
