"""Records of named, typed columns; then changing them: new values, a new column, deletions.

Sentences with their token ids and a score lie in three columns, each in bins of its own: reading
one touches no other. A reader that is open keeps what it sees, whatever is committed meanwhile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import splitpipe as sp

LENGTH = 16
SCHEMA = sp.Schema(
    {"text": "str", "ids": sp.ndarray("uint16", (LENGTH,)), "score": "float32"},
)


def sentences(count: int) -> Iterator[dict[str, Any]]:
    """Records; the score of every tenth is not known yet."""
    rng = np.random.default_rng(0)
    for n in range(count):
        ids = rng.integers(0, 1000, LENGTH, dtype=np.uint16)
        text = f"sentence {n} says: " + " ".join(f"word{number}" for number in ids)
        yield {"text": text, "ids": ids, "score": None if n % 10 == 0 else n / count}


def main() -> None:
    """Write, read, change and compact a small dataset."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sentences"

        # Texts are compressed one by one, with a dictionary trained from the first of them.
        small = {"text": sp.Zstd(dictionary=True)}
        with sp.DatasetWriter(path, SCHEMA, bins=8, compression=small) as writer:
            writer.write_many(sentences(5000))

        before = sp.open_dataset(path)
        print(f"{len(before)} records of {', '.join(before.schema)}")
        batch = before.get_batch([7, 1, 4999], columns=["ids", "score"])
        print(
            f"a batch: ids {batch['ids'].shape} {batch['ids'].dtype}, score {batch['score'][0]:.4f}"
        )

        # A batch can be gathered into an array that is used again and again.
        room = np.empty((64, LENGTH), dtype=np.uint16)
        before.get_batch(range(64), columns=["ids"], out={"ids": room})
        print(f"gathered {room.shape}, largest id {room.max()}")

        with sp.DatasetWriter(path, append=True) as writer:
            scores = before.get_batch(range(5000), columns=["score"])["score"]
            lost = [row for row, score in enumerate(scores) if score is None]
            writer.update_many((row, {"score": -1.0}) for row in lost)
            writer.add_column("length", "int64")
            writer.update_column("length", (len(record["text"]) for record in before))
            writer.delete([0, 1, 2])

        after = sp.open_dataset(path)
        print(f"{len(lost)} scores filled in, 3 records deleted: {len(after)} are left")
        print(f"the first: score {after[0]['score']:.4f}, {after[0]['length']} characters")
        print(f"the open reader still sees {len(before)}, its first score is {before[0]['score']}")

        done = sp.compact(path)
        print(f"compacted, {done.nbytes_before > done.nbytes_after}: {sp.check_dataset(path).ok}")
        for dataset in (before, after):
            dataset.close()


if __name__ == "__main__":
    main()
