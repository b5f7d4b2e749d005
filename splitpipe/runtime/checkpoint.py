"""The state of a loader in a file.

Responsible for: `LoaderCheckpoint`, which is there or not, and is whole if it is there.

A file is one JSON document: what it is, the fingerprint of the graph, the state, and last the
CRC32C of all bytes before it.

Rules:
- it is written under another name, made durable, and renamed: whoever is killed while it is written
  leaves the one before;
- every byte is checked when it is read; a damaged file is an error that names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

import google_crc32c

from splitpipe.errors import CorruptRecord, FormatError, ResumeError
from splitpipe.pipeline.signature import mark
from splitpipe.storage import files

__all__ = ["LoaderCheckpoint"]

_MAGIC: Final = "splitpipe loader checkpoint"
_LIMIT: Final = 1 << 28


class LoaderCheckpoint:
    """A file with the state of one loader, or of any number of them by name.

    Args:
        path: of the file; its folder is made when something is saved.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> checkpoint = sp.LoaderCheckpoint(os.path.join(tempfile.mkdtemp(), "data.json"))
        >>> pipe = sp.Pipeline(range(5))
        >>> with pipe.loader(executor="inline") as loader:
        ...     first = next(loader)
        ...     checkpoint.save(loader.state_dict())
        >>> with pipe.loader(executor="inline", state=checkpoint.load()) as loader:
        ...     list(loader)
        [1, 2, 3, 4]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))

    @property
    def exists(self) -> bool:
        """Whether something was saved."""
        return files.is_there(self.path)

    def save(self, state: Mapping[str, Any]) -> None:
        """Put a state in place of what is there; durable when it returns.

        Raises:
            ResumeError: it holds what JSON cannot.
            StorageError: there is no room, or no right to write.
        """
        graph = state.get("graph")
        document = {"what": _MAGIC, "graph": mark(graph) if graph else None, "state": dict(state)}
        try:
            head = json.dumps(document, separators=(",", ":"), allow_nan=True).encode()[:-1]
        except (TypeError, ValueError) as error:
            raise ResumeError(
                f"the state holds what JSON cannot: {error}; a stage's state_dict() must return "
                "numbers, words, lists and dicts"
            ) from error
        data = head + b',"checksum":"%08x"}\n' % google_crc32c.value(head)
        files.make_directory(os.path.dirname(self.path))
        files.replace(self.path, data)
        files.sync_directory(os.path.dirname(self.path))

    def load(self) -> dict[str, Any]:
        """Return the state.

        Raises:
            CorruptRecord: its bytes are not those that were saved.
            FormatError: it is no checkpoint.
            StorageError: there is none, or it cannot be read.
        """
        data = files.read_whole(self.path, limit=_LIMIT, advice="nothing was saved there yet")
        head, _, tail = data.rpartition(b',"checksum":"')
        if not data.startswith(b'{"what":"' + _MAGIC.encode()):
            raise FormatError(f"{self.path} is no checkpoint of a loader; is the path right?")
        if tail != b'%08x"}\n' % google_crc32c.value(head):
            raise CorruptRecord(
                f"{self.path} is damaged: its checksum is wrong; take an older checkpoint"
            )
        document = json.loads(data)
        state: dict[str, Any] = document["state"]
        return state

    def __repr__(self) -> str:
        return f"LoaderCheckpoint({self.path!r})"
