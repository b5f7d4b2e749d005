"""Views: a training set chosen, cut and joined without copying a byte.

Writes 2,000 documents with keys and metadata, and embeddings of most of them into a second dataset,
as another program might. Then: only long documents, split so that no author is in two parts, their
embeddings beside them, and shuffled batches of that from worker processes.

Run it: ``python examples/views.py``
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import splitpipe as sp

DOCUMENTS = 2_000


def write(documents: Path, embeddings: Path) -> None:
    """Store documents, and embeddings of two thirds of them, in another order."""
    rng = np.random.default_rng(0)
    with sp.DatasetWriter(documents, bins=8, metadata={"length": "int64"}) as writer:
        for number in range(DOCUMENTS):
            text = "word " * int(rng.integers(1, 60))
            record = {"text": text, "author": f"author-{rng.integers(100)}"}
            writer.write(record, key=f"doc-{number}", meta={"length": len(text), "lang": "en"})
    with sp.DatasetWriter(embeddings, bins=4) as writer:
        for number in rng.permutation(DOCUMENTS).tolist():
            if number % 3:
                vector = rng.normal(size=32).astype(np.float32)
                writer.write({"vector": vector}, key=f"doc-{number}")


def norm(record: dict[str, Any]) -> tuple[int, npt.NDArray[np.float32]]:
    """What a training step would want: here the length of the text and the unit vector."""
    vector = record["vector"]
    return len(record["text"]), vector / np.linalg.norm(vector)


def main() -> None:
    """Choose, cut, join, iterate."""
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "documents", Path(folder) / "embeddings"
        write(*paths)
        with sp.open_dataset(paths[0]) as documents, sp.open_dataset(paths[1]) as embeddings:
            long = documents.where("length >= ?", [100])
            print(f"{len(long)} of {len(documents)} documents have 100 characters or more")

            parts = long.split({"train": 0.8, "val": 0.1, "test": 0.1}, by="author", seed=0)
            authors = [
                set(part.get_batch(range(len(part)), ["author"])["author"])
                for part in parts.values()
            ]
            shared = authors[0] & authors[1] or authors[0] & authors[2] or authors[1] & authors[2]
            print(f"{sum(map(len, parts.values()))} in three parts, {len(shared)} authors in two")

            train = parts["train"].join(embeddings)
            print(f"{len(train)} of {len(parts['train'])} have an embedding: {list(train.schema)}")

            pipe = sp.Pipeline(train, shuffle="global", seed=0).map(norm, workers=2).batch(64)
            with pipe.loader() as loader:
                lengths, vectors = next(iter(loader))
            print(f"a batch: lengths {lengths.shape}, vectors {vectors.shape} {vectors.dtype}")


if __name__ == "__main__":
    main()
