"""Preprocess one dataset into another, with several processes.

Reads text records, hashes every word of them in four worker processes (work that is worth a process
of its own), drops the short ones, and writes what is left into a new dataset. The order of the
records is the order of the source however many workers there are, so running it with other numbers
of workers gives the same dataset, byte for byte in every record.

Run it: ``python examples/parallel_preprocessing.py``
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from pathlib import Path

import splitpipe as sp

WORDS = ["bin", "index", "record", "stage", "batch", "order", "worker", "arena", "epoch", "shard"]
RECORDS = 3_000


def sentences() -> list[bytes]:
    """Some text to work on."""
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 20))).encode() for _ in range(RECORDS)]


def fingerprint(record: bytes) -> bytes:
    """The expensive part: a slow hash a word. Runs in the workers."""
    digests = (
        hashlib.pbkdf2_hmac("sha256", word, b"salt", 100, dklen=8).hex().encode()
        for word in record.split()
    )
    return b" ".join(digests)


def long_enough(record: bytes) -> bool:
    """Keep records of five words or more."""
    return record.count(b" ") >= 4


def preprocess(source: Path, target: Path, *, workers: int) -> float:
    """Write the fingerprints of ``source`` into ``target``; return the seconds it took."""
    dataset = sp.open_dataset(source)
    pipe = sp.Pipeline(dataset).filter(long_enough).map(fingerprint, workers=workers)
    started = time.perf_counter()
    with pipe.loader() as loader, sp.DatasetWriter(target, bins=8) as writer:
        writer.write_many(loader)
    return time.perf_counter() - started


def main() -> None:
    """Do it with one worker and with four, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with sp.DatasetWriter(home / "text", bins=8) as writer:
            writer.write_many(sentences())
        for workers in (1, 4):
            seconds = preprocess(home / "text", home / f"hashed-{workers}", workers=workers)
            print(f"{workers} worker(s): {seconds:.2f} s")

        one, four = sp.open_dataset(home / "hashed-1"), sp.open_dataset(home / "hashed-4")
        print(f"kept {len(four)} of {RECORDS} records; the first is {four[0][:33].decode()}...")
        same = list(one) == list(four)
        print("the same records in the same order:", same)
        assert same


# Worker processes import this file again: without this line, each would start the job as well.
if __name__ == "__main__":
    main()
