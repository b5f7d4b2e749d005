"""Everything a program does with a data service, from somewhere else.

In the order of use: ``http`` asks a server, ``client`` is what `connect` returns, ``parts`` its
nouns, ``writer`` sends rows, ``loader`` and ``asynchronous`` read batches over what is in ``feed``,
``tensors`` makes tensors of them.

Rules:
- nothing here knows how the server is made: only its REST interface, and what `splitpipe.wire`
  says;
- nothing that arrives is ever unpickled or run;
- the token is in no message, repr or URL.
"""

from __future__ import annotations

try:
    import msgspec as _msgspec  # noqa: F401  looked for here, where its absence can be explained
    import urllib3 as _urllib3  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"a client of the data service needs {error.name}: pip install 'splitpipe[client]'"
    ) from error

from splitpipe.client.asynchronous import AsyncRemoteLoader
from splitpipe.client.client import Client, connect
from splitpipe.client.loader import RemoteLoader, RemoteStatistics
from splitpipe.client.writer import ColumnSetWriter

__all__ = [
    "AsyncRemoteLoader",
    "Client",
    "ColumnSetWriter",
    "RemoteLoader",
    "RemoteStatistics",
    "connect",
]
