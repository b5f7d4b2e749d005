"""Blocks of remote objects on the local disk, shared by all processes of a machine.

Responsible for: keeping what was fetched, within a limit, and proving that what is read from there
is right. What an object means is not known here; where it comes from is a `Store`.
"""

from splitpipe.cache.ahead import Prefetch
from splitpipe.cache.cache import BLOCK_NBYTES, BlockCache
from splitpipe.cache.checking import CacheReport, check_cache
from splitpipe.cache.file import EXTENT_NBYTES, CachedFile
from splitpipe.cache.inventory import CachedObject, inventory
from splitpipe.cache.ranges import Ranges
from splitpipe.cache.sizes import default_directory, format_nbytes, parse_nbytes
from splitpipe.cache.statistics import CacheStatistics
from splitpipe.cache.store import CachedStore
from splitpipe.cache.token import Token

__all__ = [
    "BLOCK_NBYTES",
    "EXTENT_NBYTES",
    "BlockCache",
    "CacheReport",
    "CacheStatistics",
    "CachedFile",
    "CachedObject",
    "CachedStore",
    "Prefetch",
    "Ranges",
    "Token",
    "check_cache",
    "default_directory",
    "format_nbytes",
    "inventory",
    "parse_nbytes",
]
