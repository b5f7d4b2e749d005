"""How often one may ask, and try. Each test has a server of its own, which leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server.serving import run_splitpipe, serving


@pytest.mark.long
def test_wrong_tokens_cannot_be_tried_at_any_speed(tmp_path: Path) -> None:
    with serving(tmp_path / "root", "--require-token") as server:
        done = run_splitpipe("keys", str(server.root), "--token", "me", "--json")
        server.token = json.loads(done.stdout)["token"]
        assert server.call("GET", "/api/v1/version")[0] == 200
        wrong = "Bearer sp_" + "0" * 16 + "_" + "A" * 43
        statuses = [
            server.call("GET", "/api/v1/version", Authorization=wrong)[0] for _ in range(40)
        ]
        assert statuses[0] == 401
        assert statuses[-1] == 429
        # Whoever is known is not held up by others at the same address.
        assert server.call("GET", "/api/v1/version")[0] in (200, 429)


@pytest.mark.long
def test_requests_have_a_rate(tmp_path: Path) -> None:
    with serving(tmp_path / "root", "--rate", "2") as server:
        answers = [server.call("GET", "/api/v1/version") for _ in range(12)]
        assert answers[0][0] == 200
        late = [headers for status, _, headers in answers if status == 429]
        assert late
        assert int(late[0]["retry-after"]) >= 1
        assert server.call("GET", "/healthz")[0] == 200
