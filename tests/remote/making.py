"""Places where datasets of tests lie, and how they come there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Place", "placed"]


@dataclass(frozen=True)
class Place:
    """Where datasets are put.

    Attributes:
        root: its url.
        options: the ``storage_options`` that lead there.
        folder: where it is one.
        server: where it is S3.
        bucket: there.
    """

    root: str
    options: dict[str, Any] | None = field(default=None, repr=False)
    folder: Path | None = None
    server: Any = None
    bucket: str = ""

    def url(self, name: str) -> str:
        """The url of a dataset."""
        return f"{self.root}/{name}"

    def put(self, local: str | Path, name: str) -> None:
        """Copy a dataset there, all but its lock."""
        for path in sorted(Path(local).iterdir()):
            if path.name != "writer.lock":
                self.put_file(f"{name}/{path.name}", path.read_bytes())

    def put_file(self, key: str, data: bytes) -> None:
        """Write one object."""
        if self.folder is None:
            self.server.put(f"{self.bucket}/{key}", data)
            return
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, name: str) -> None:
        """Remove a dataset; of a folder only."""
        assert self.folder is not None
        shutil.rmtree(self.folder / name)


def placed(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A new place of a kind."""
    if kind == "s3":
        bucket = request.getfixturevalue("bucket")
        return Place(bucket.url, bucket.options, server=bucket.server, bucket=bucket.name)
    if kind == "http":
        server = request.getfixturevalue("file_server")
        return Place(server.url, folder=server.folder)
    return Place(f"file://{tmp_path}/store", folder=tmp_path / "store")
