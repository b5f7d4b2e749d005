"""A server that cannot write says so, and goes on when it can."""

from __future__ import annotations

import resource

import pytest

from tests.server.serving import Served


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit(2)")
def test_nothing_is_answered_as_done_that_is_not_there(served: Served) -> None:
    free = resource.prlimit(served.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (4096, free[1]))
    told = served.json("POST", "/api/v1/datasets", body={"name": "news"}, status=507)
    assert told["type"] == "StorageError"
    assert "Make room" in told["detail"]
    assert served.json("GET", "/api/v1/datasets") == []
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, free)
    served.json("POST", "/api/v1/datasets", body={"name": "news"}, status=201)
    assert [one["name"] for one in served.json("GET", "/api/v1/datasets")] == ["news"]
