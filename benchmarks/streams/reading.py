"""Two epochs of one system, in a process of its own: ``python -m benchmarks.streams.reading JOB``.

Responsible for: reading as a user of that system would, and proving that every record came.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

BATCH = 32
WORKERS = 2
LIMIT_NBYTES = 4 << 20


class Epochs:
    """Takes batches of several epochs, and keeps the time.

    Args:
        records: of an epoch.
        began: when the program began to open the dataset.
    """

    def __init__(self, records: int, began: float) -> None:
        self._records = records
        self._began = began
        self.first_s: float | None = None
        self.rates: list[float] = []

    def take(self, batches: Iterable[Any]) -> None:
        """One epoch of arrays of shape (n, bytes of a record)."""
        seen: list[int] = []
        began = time.perf_counter() if self.rates else self._began
        for batch in batches:
            if self.first_s is None:
                self.first_s = time.perf_counter() - self._began
            seen += np.ascontiguousarray(batch[:, :8]).view(np.int64)[:, 0].tolist()
            del batch
            if len(seen) == self._records:
                break
        self.rates.append(self._records / (time.perf_counter() - began))
        if sorted(seen) != list(range(self._records)):
            raise AssertionError(f"{len(seen)} records came, {len(set(seen))} of them different")


def as_array(record: bytes) -> Any:
    return np.frombuffer(record, np.uint8)


def stack_bytes(samples: list[Any]) -> Any:
    """What a loader of torch's is given as its collating function."""
    return np.stack([as_array(s["data"] if isinstance(s, dict) else s) for s in samples])


def splitpipe(job: dict[str, Any], epochs: Epochs) -> None:
    import splitpipe as sp

    dataset = sp.open_dataset(job["url"], cache_dir=job["local"], storage_options=job["options"])
    pipe = sp.Pipeline(dataset, shuffle="global", seed=0)
    pipe = pipe.map(as_array, workers=WORKERS).batch(BATCH)
    with pipe.loader(epochs=2) as loader:
        epochs.take(loader)
        epochs.take(loader)


def mosaicml(job: dict[str, Any], epochs: Epochs) -> None:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    dataset = StreamingDataset(
        remote=job["url"], local=job["local"], shuffle=True, shuffle_seed=0, batch_size=BATCH
    )
    loader: Any = DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=WORKERS,
        collate_fn=stack_bytes,
        persistent_workers=True,
    )
    epochs.take(loader)
    epochs.take(loader)


def litdata(job: dict[str, Any], epochs: Epochs) -> None:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader

    # Its fast path takes no server without TLS otherwise; in its own words an option of the client.
    downloader._OBSTORE_CLIENT_OPTIONS = {**downloader._OBSTORE_CLIENT_OPTIONS, "allow_http": True}
    options = job["options"]
    dataset = StreamingDataset(
        job["url"],
        cache_dir=job["local"],
        shuffle=True,
        seed=0,
        drop_last=False,
        storage_options={
            "endpoint_url": options["endpoint_url"],
            "aws_access_key_id": options["key"],
            "aws_secret_access_key": options["secret"],
        },
    )
    loader = StreamingDataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=WORKERS,
        collate_fn=stack_bytes,
        persistent_workers=True,
    )
    epochs.take(loader)
    epochs.take(loader)


def limit(job: dict[str, Any], epochs: Epochs) -> None:
    """The bytes of the dataset by bare ranged requests: what server and proxy give at most."""
    from splitpipe.stores import open_store

    store = open_store(job["url"], storage_options=job["options"])
    wanted = [
        (key, start, min(stat.size, start + LIMIT_NBYTES))
        for key, stat in store.list()
        if key.endswith(".bin")
        for start in range(0, stat.size, LIMIT_NBYTES)
    ]

    def once(pool: ThreadPoolExecutor) -> Iterator[Any]:
        done = 0
        for got in pool.map(lambda one: len(store.read(*one)), wanted):
            done += got
        assert done >= job["records"] * job["nbytes"]
        for start in range(0, job["records"], BATCH):
            numbers = np.arange(start, min(job["records"], start + BATCH), dtype=np.int64)
            yield numbers.view(np.uint8).reshape(-1, 8)

    with ThreadPoolExecutor(8) as pool:
        epochs.take(once(pool))
        epochs.take(once(pool))


READERS: dict[str, Callable[[dict[str, Any], Epochs], None]] = {
    "splitpipe": splitpipe,
    "mosaicml": mosaicml,
    "litdata": litdata,
    "limit": limit,
}


def main(text: str) -> None:
    job = json.loads(text)
    reader = READERS[job["system"].partition("-")[0]]
    began = time.perf_counter()
    epochs = Epochs(job["records"], began)
    reader(job, epochs)
    first, second = epochs.rates
    print(json.dumps({"first_s": epochs.first_s, "epoch1_per_s": first, "epoch2_per_s": second}))


if __name__ == "__main__":
    main(sys.argv[1])
