"""What reading a remote dataset will cost, said before anything is read.

Responsible for: `plan_reading`, a pure function of a manifest, an order and a cache: requests,
bytes from the store, the most that lies in the cache, and what would be cheaper.

Rules:
- it opens nothing and asks nothing: it can be called for a dataset of a hundred million records;
- it speaks of one epoch, begun with an empty cache, on one machine;
- what is said is held against what a server counts, by a test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from splitpipe.errors import FormatError
from splitpipe.remote.choosing import REQUEST_NBYTES
from splitpipe.remote.mirror import BLOCK_NBYTES
from splitpipe.remote.policy import Policy
from splitpipe.storage.committed import Column, Manifest
from splitpipe.storage.format import FILE_HEADER_NBYTES, RECORD_HEADER_NBYTES

__all__ = ["ReadingPlan", "plan_reading"]

# The manifest's version, the manifest, and what objects there are.
_OPENING_REQUESTS = 3
_SHUFFLES = (None, "binwise", "global")


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """What one epoch costs.

    Attributes:
        how: ``keep``: all of it is kept, so that later epochs cost nothing; ``pass``: every bin
            comes once an epoch and makes room for others; ``pick``: every record comes by itself
            and is not kept.
        records: how many are read.
        requests: to the store.
        egress_nbytes: that come from the store.
        cache_nbytes: the most that lies in the cache.
        data_nbytes: of the whole dataset.
        advice: what would cost less; ``None``: nothing would.

    Example:
        >>> plan = ReadingPlan("keep", 10, 4, 1000, 1000, 1000, None)
        >>> print(plan)
        10 records in 4 requests, 0.0 MB from the store, at most 0.0 MB in the cache:
        all is kept, and later epochs ask for nothing
    """

    how: str
    records: int
    requests: int
    egress_nbytes: int
    cache_nbytes: int
    data_nbytes: int
    advice: str | None

    def __str__(self) -> str:
        lines = [
            f"{self.records:,} records in {self.requests:,} requests, "
            f"{self.egress_nbytes / 1e6:,.1f} MB from the store, "
            f"at most {self.cache_nbytes / 1e6:,.1f} MB in the cache:",
            _MEANINGS[self.how],
        ]
        if self.advice is not None:
            lines.append(f"cheaper: {self.advice}")
        return "\n".join(lines)


_MEANINGS = {
    "keep": "all is kept, and later epochs ask for nothing",
    "pass": "every bin comes once an epoch, and makes room for others when it was read",
    "pick": "every record comes by itself and is not kept",
}


def plan_reading(
    manifest: Manifest,
    shuffle: str | None = None,
    *,
    window: int = 1,
    lanes: int = 1,
    cache_limit: int | None = None,
    machines: int = 1,
    policy: Policy | None = None,
) -> ReadingPlan:
    """Say what one epoch of a remote dataset costs one machine.

    Args:
        manifest: of the dataset.
        shuffle: the order, as ``Pipeline`` takes it.
        window: of a binwise order.
        lanes: as ``Pipeline`` takes them; where the machines divide them, each has its own.
        cache_limit: most bytes in the cache; ``None``: no limit.
        machines: how many machines share the records of an epoch evenly, each with a cache.
        policy: how it is fetched.

    Raises:
        FormatError: there is no such shuffle.
    """
    if shuffle not in _SHUFFLES:
        raise FormatError(f"shuffle is None, 'binwise' or 'global', not {shuffle!r}")
    how = policy or Policy()
    whole = _whole(manifest)
    records = -(-manifest.live_rows // machines)
    data, fixed = whole.nbytes + whole.index_nbytes, _OPENING_REQUESTS + len(manifest.columns)
    touched = 1.0
    if machines > 1 and lanes % machines == 0:
        whole = whole.part(machines, lanes // machines)
    elif machines > 1:
        touched = _touched(manifest, machines, how)
    read = whole.nbytes + whole.index_nbytes
    if cache_limit is None or read + whole.sums_nbytes <= cache_limit:
        egress = int(touched * whole.nbytes) + whole.index_nbytes
        requests = int(touched * whole.requests(how.near_nbytes)) + fixed
        kept = egress + int(touched * len(whole.bins) + 1) * BLOCK_NBYTES
        return ReadingPlan("keep", records, requests, egress, kept, data, None)
    if shuffle == "binwise" and _window_nbytes(whole, window, cache_limit) <= cache_limit:
        requests = whole.requests(how.extent_nbytes) + fixed
        return ReadingPlan("pass", records, requests, read, cache_limit, data, None)
    # Of every bin a piece is being read, and the next one comes.
    piece = max(BLOCK_NBYTES, cache_limit // 16 // max(1, len(whole.bins)))
    if shuffle is None and 2 * piece * len(whole.bins) + whole.index_nbytes <= cache_limit:
        requests = whole.requests(piece) + fixed
        return ReadingPlan("pass", records, requests, read, cache_limit, data, None)
    return _picked(whole, records, manifest.live_rows, data, cache_limit)


def _picked(whole: _Whole, records: int, rows: int, data: int, cache_limit: int) -> ReadingPlan:
    """The plan where every record comes by itself."""
    fraction = records / max(1, rows)
    values, nbytes = int(whole.values * fraction), int(whole.record_nbytes * fraction)
    return ReadingPlan(
        "pick",
        records,
        values + -(-whole.index_nbytes // BLOCK_NBYTES) + _OPENING_REQUESTS,
        nbytes + whole.index_nbytes,
        min(cache_limit, whole.index_nbytes),
        data,
        _advice(whole, nbytes, values, cache_limit),
    )


@dataclass(frozen=True, slots=True)
class _Whole:
    """What all of a dataset is."""

    bins: tuple[int, ...]
    nbytes: int
    index_nbytes: int
    sums_nbytes: int
    record_nbytes: int
    values: int
    largest: tuple[int, ...]

    def part(self, machines: int, lanes: int) -> _Whole:
        """What a machine reads that has some lanes: as many pieces of a bin, and their edges."""
        bins = tuple(min(size, size // machines + lanes * BLOCK_NBYTES) for size in self.bins)
        index = min(self.index_nbytes, self.index_nbytes // machines + lanes * BLOCK_NBYTES)
        return replace(
            self,
            bins=bins,
            nbytes=sum(bins),
            index_nbytes=index,
            largest=tuple(size // machines for size in self.largest),
        )

    def requests(self, nbytes: int) -> int:
        """How many requests bring all bins, so many bytes at once."""
        return sum(-(-size // nbytes) for size in self.bins)


def _whole(manifest: Manifest) -> _Whole:
    bins = [size for column in manifest.columns for size in column.bin_sizes if size]
    of_first = sorted(manifest.columns[0].bin_sizes, reverse=True)
    # A bin of the first column stands for those of the same number in the others.
    share = sum(bins) / max(1, sum(of_first))
    return _Whole(
        bins=tuple(bins),
        nbytes=sum(bins),
        index_nbytes=sum(map(manifest.index_size, manifest.columns)),
        sums_nbytes=sum(map(manifest.sums_size, manifest.columns)),
        record_nbytes=sum(map(_record_nbytes, manifest.columns)),
        values=sum(manifest.rows - column.missing for column in manifest.columns),
        largest=tuple(int(size * share) for size in of_first),
    )


def _window_nbytes(whole: _Whole, window: int, limit: int) -> int:
    """What lies in a cache for a binwise order: the window, what comes next, and the index."""
    return sum(whole.largest[:window]) + window * BLOCK_NBYTES + limit // 3 + whole.index_nbytes


def _record_nbytes(column: Column) -> int:
    files = sum(1 for size in column.bin_sizes if size)
    heads = FILE_HEADER_NBYTES * files + RECORD_HEADER_NBYTES * column.layout.rows
    return max(0, sum(column.bin_sizes) - heads - column.dead_nbytes)


def _touched(manifest: Manifest, machines: int, how: Policy) -> float:
    """Which part of the extents holds a record that one of some machines reads."""
    sizes = [size for column in manifest.columns for size in column.bin_sizes if size]
    mean = sum(sizes) / max(1, manifest.rows * len(manifest.columns))
    extent = how.extent_nbytes if how.neighbours else BLOCK_NBYTES
    together = max(1.0, extent / max(1.0, mean))
    return float(1 - (1 - 1 / machines) ** together)


def _advice(whole: _Whole, picked: int, values: int, limit: int) -> str | None:
    """The widest binwise window with which every bin comes once."""
    window = 0
    while window < len(whole.largest) and _window_nbytes(whole, window + 1, limit) <= limit:
        window += 1
    requests = whole.requests(Policy().extent_nbytes)
    alone = picked + values * REQUEST_NBYTES
    if not window or whole.nbytes + requests * REQUEST_NBYTES >= alone:
        return None
    return (
        f"shuffle='binwise', window={window}: {requests:,} requests and "
        f"{whole.nbytes / 1e6:,.1f} MB with the same cache"
    )
