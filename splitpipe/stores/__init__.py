"""Objects by key, wherever they lie: memory, local disks, and remote stores.

Responsible for: getting and putting whole objects and ranges of them, exactly or not at all. What
an object means is not known here.
"""

from splitpipe.stores.base import ABSENT, MemoryStore, ObjectStat, Store, checked_key

__all__ = ["ABSENT", "MemoryStore", "ObjectStat", "Store", "checked_key"]
