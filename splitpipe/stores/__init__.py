"""Objects by key, wherever they lie: memory, local disks, and remote stores.

Responsible for: getting and putting whole objects and ranges of them, exactly or not at all. What
an object means is not known here.

Reading order: `base`, the seam, and `local`; `connections`, `ranges` and `http`;
`s3`; `filesystem` for every other scheme; `retrying` around any of them; `locate`, from a url to a
store. `sealed` keeps credentials, `patience` says how long to wait, `failures` how to tell;
`hedging` asks a second time what takes too long, by `waiting` for two answers at once.

Each name is imported when it is first used: what lies on this disk needs no retrying.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitpipe.late import late

if TYPE_CHECKING:
    from splitpipe.stores.base import ABSENT, MemoryStore, ObjectStat, Store, checked_key
    from splitpipe.stores.local import LocalStore
    from splitpipe.stores.locate import is_url, open_store, split_url
    from splitpipe.stores.patience import RetryPolicy, Timeouts
    from splitpipe.stores.retrying import RetryingStore, RetryStatistics
    from splitpipe.stores.sealed import told_url, travelling

_HOMES = {
    "ABSENT": ".base",
    "LocalStore": ".local",
    "MemoryStore": ".base",
    "ObjectStat": ".base",
    "RetryPolicy": ".patience",
    "RetryStatistics": ".retrying",
    "RetryingStore": ".retrying",
    "Store": ".base",
    "Timeouts": ".patience",
    "checked_key": ".base",
    "is_url": ".locate",
    "open_store": ".locate",
    "split_url": ".locate",
    "told_url": ".sealed",
    "travelling": ".sealed",
}

__all__ = [
    "ABSENT",
    "LocalStore",
    "MemoryStore",
    "ObjectStat",
    "RetryPolicy",
    "RetryStatistics",
    "RetryingStore",
    "Store",
    "Timeouts",
    "checked_key",
    "is_url",
    "open_store",
    "split_url",
    "told_url",
    "travelling",
]

__getattr__ = late(__name__, _HOMES)
