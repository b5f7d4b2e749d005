"""What is read: rows of two small columns, and images of 150 KB."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

import splitpipe as sp

__all__ = ["MODULES", "write_images", "write_rows", "write_rows_as_csv"]

IMAGE = (224, 224, 3)
MODULES = '''"""What a batch is made with."""

import hashlib

from splitpipe.server.modules import preprocessor


@preprocessor
def preprocess(batch, *, rounds: int = 0):
    """Work that keeps a core busy."""
    digest = b""
    for _ in range(rounds):
        digest = hashlib.sha256(digest + b"x" * 64).digest()
    return {**batch, "digest": digest}
'''


def text_of(number: int) -> str:
    return f"a few words, {number}"


def write_rows(folder: Path, rows: int) -> None:
    with sp.DatasetWriter(folder, {"id": "int64", "text": "str"}) as writer:
        writer.write_many({"id": number, "text": text_of(number)} for number in range(rows))


def write_rows_as_csv(folder: Path, rows: int) -> None:
    folder.mkdir()
    with (folder / "shard.00000.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "text"])
        lines.writerows((number, text_of(number)) for number in range(rows))


def write_images(folder: Path, count: int) -> None:
    dice = np.random.default_rng(0)
    with sp.DatasetWriter(folder, {"image": sp.ndarray("uint8", IMAGE)}) as writer:
        for _ in range(count):
            writer.write({"image": dice.integers(0, 255, IMAGE, dtype=np.uint8)})
