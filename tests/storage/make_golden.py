"""Writes the golden dataset: ``python -m tests.storage.make_golden DIRECTORY``.

``golden/v1`` was made by this and must never change: it stands for the datasets that people
have. A later format version gets a golden dataset of its own beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from splitpipe.storage import DatasetWriter

__all__ = ["GOLDEN", "first_session", "make_golden", "second_session"]

GOLDEN = Path(__file__).parent / "golden" / "v1"
DATASET = bytes(range(16))


def first_session() -> list[bytes]:
    """140 records: one complete stripe of 2 bins, and 12 more."""
    return [(b"record %d\n" % n) * (n % 4) for n in range(140)]


def second_session() -> list[bytes]:
    """5 records for 3 bins that take turns in another order."""
    return [bytes([n]) * 10 for n in range(5)]


def make_golden(path: Path) -> None:
    """Write the dataset as this version writes it."""
    with mock.patch("secrets.token_bytes", return_value=DATASET):
        with DatasetWriter(path, bins=2) as writer:
            writer.write_many(first_session())
        with DatasetWriter(path, append=True, bins=3, dealing=[2, 0, 1]) as writer:
            writer.write_many(second_session())
    (path / "writer.lock").unlink()


if __name__ == "__main__":
    make_golden(Path(sys.argv[1]))
