"""Reading a loader that may never end.

Responsible for: `Reader`, a thread that takes what a loader gives, and says how that ended.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import splitpipe as sp

PATIENCE_S = 120.0
"""What a busy machine may need for what takes milliseconds on an idle one."""


class Reader:
    """What came out of a loader so far, and how it ended."""

    def __init__(self, loader: sp.Loader) -> None:
        self.loader = loader
        self.got: list[Any] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="reader")
        self._thread.start()

    @property
    def waits(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Close the loader under it, and wait for its end.

        Raises:
            TimeoutError: it did not end.
        """
        self.loader.close()
        self._thread.join(PATIENCE_S)
        if self.waits:
            raise TimeoutError("the loader was closed, and its reader still waits")

    def _read(self) -> None:
        try:
            for item in self.loader:
                self.got.append(item)
                del item
        except BaseException as error:
            self.error = error


@contextmanager
def reading(loader: sp.Loader) -> Iterator[Reader]:
    """Read `loader` in a thread while the block runs; it is closed at its end."""
    reader = Reader(loader)
    try:
        yield reader
    finally:
        reader.close()
