"""Datasets of our own format that lie in a store: read as if they were local.

In the order of a record's life: ``opening`` finds the manifest, ``versions`` knows the objects,
``mirror`` has them as sparse files of a cache, ``columns`` and ``extents`` say which blocks some
rows need, ``records`` has them brought and reads them, ``ahead`` asks for what comes next in the
order, ``memory`` reads what the cache cannot hold.
"""

from __future__ import annotations

from splitpipe.remote.opening import manifest_at, open_remote, open_url
from splitpipe.remote.plan import ReadingPlan, plan_reading
from splitpipe.remote.policy import Policy
from splitpipe.remote.records import RemoteRecords

__all__ = [
    "Policy",
    "ReadingPlan",
    "RemoteRecords",
    "manifest_at",
    "open_remote",
    "open_url",
    "plan_reading",
]
