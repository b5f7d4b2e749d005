"""The catalog of a remote dataset: fetched whole when it is first asked.

Responsible for: `RemoteCatalog`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from splitpipe.remote.mirror import Mirror
from splitpipe.storage.base import Catalog, Rows
from splitpipe.storage.catalog_file import catalog_name

__all__ = ["RemoteCatalog"]


class RemoteCatalog:
    """Keys, metadata and SQL over a dataset that lies elsewhere.

    Args:
        mirror: where the catalog is brought.
        catalog: which reads it there.
    """

    __slots__ = ("_catalog", "_here", "_lock", "_mirror")

    def __init__(self, mirror: Mirror, catalog: Catalog) -> None:
        self._mirror = mirror
        self._catalog = catalog
        self._here = False
        self._lock = threading.Lock()

    def _asked(self) -> Catalog:
        if not self._here:
            with self._lock:
                identity = self._mirror.manifest.catalog
                assert identity is not None
                name = catalog_name(self._mirror.manifest.volume, identity.number)
                self._mirror.bring(name, identity.size)
                self._here = True
        return self._catalog

    def row(self, key: str) -> int:
        """See `Catalog.row`."""
        return self._asked().row(key)

    def keys(self, rows: Rows) -> list[str | None]:
        """See `Catalog.keys`."""
        return self._asked().keys(rows)

    def meta(self, rows: Rows) -> list[dict[str, Any]]:
        """See `Catalog.meta`."""
        return self._asked().meta(rows)

    def where(
        self, clause: str, parameters: Sequence[Any] = (), *, limit: int | None = None
    ) -> Rows:
        """See `Catalog.where`."""
        return self._asked().where(clause, parameters, limit=limit)

    def close(self) -> None:
        """See `Catalog.close`."""
        self._catalog.close()
