"""Objects by key, wherever they lie: memory, local disks, and remote stores.

Responsible for: getting and putting whole objects and ranges of them, exactly or not at all. What
an object means is not known here.

Reading order: `base`, the seam, and `local`; `connections`, `ranges` and `http`;
`s3`; `filesystem` for every other scheme; `retrying` around any of them; `locate`, from a url to a
store. `sealed` keeps credentials, `patience` says how long to wait, `failures` how to tell.
"""

from splitpipe.stores.base import ABSENT, MemoryStore, ObjectStat, Store, checked_key
from splitpipe.stores.local import LocalStore
from splitpipe.stores.locate import is_url, open_store, split_url
from splitpipe.stores.patience import RetryPolicy, Timeouts
from splitpipe.stores.retrying import RetryingStore, RetryStatistics
from splitpipe.stores.sealed import told_url, travelling

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
