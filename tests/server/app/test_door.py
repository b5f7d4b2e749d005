"""The door of a server that asks for tokens: who is let in, and what everybody is told."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.server.serving import Served, run_splitpipe, serving

STRICT = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Guarded:
    server: Served
    tokens: dict[str, str]

    def status(self, method: str, path: str, *, role: str | None = None, **headers: str) -> int:
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        return self.server.call(method, path, **headers)[0]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    root = tmp_path_factory.mktemp("door") / "root"
    tokens = {}
    for role in ("read", "run", "admin"):
        done = run_splitpipe("keys", str(root), "--token", role, "--role", role, "--json")
        tokens[role] = json.loads(done.stdout)["token"]
    with serving(root, "--require-token", "--log-format", "json", "--max-upload", "1") as server:
        yield Guarded(server, tokens)


def test_roles(guarded: Guarded) -> None:
    expected = {
        ("GET", "/api/v1/version"): (401, 200, 200, 200),
        ("GET", "/metrics"): (401, 200, 200, 200),
        ("GET", "/api/v1/tokens"): (401, 403, 403, 200),
        ("DELETE", "/api/v1/tokens/nothing"): (401, 403, 403, 404),
        ("GET", "/healthz"): (200, 200, 200, 200),
    }
    for (method, path), statuses in expected.items():
        roles = (None, "read", "run", "admin")
        found = tuple(guarded.status(method, path, role=role) for role in roles)
        assert found == statuses, path


def test_every_route_asks_for_a_role(guarded: Guarded) -> None:
    """A new route that forgets it is found here."""
    document = guarded.server.json("GET", "/openapi.json")
    for path, methods in document["paths"].items():
        for method in methods:
            if path == "/healthz":
                continue
            there = path.replace("{row}", "0")
            status = guarded.status(method.upper(), there)
            assert status == 401, f"{method} {path} answers {status} to a stranger"


def test_a_problem_says_what_to_do(guarded: Guarded) -> None:
    status, body, headers = guarded.server.call("GET", "/api/v1/version")
    assert (status, headers["content-type"]) == (401, "application/problem+json")
    assert headers["www-authenticate"] == "Bearer"
    said = json.loads(body)
    assert set(said) >= {"type", "title", "status", "detail", "hint"}
    assert "Authorization: Bearer" in said["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/api/v1/version", "/openapi.json"])
def test_every_answer_is_strict(guarded: Guarded, path: str) -> None:
    _, _, headers = guarded.server.call("GET", path)
    assert STRICT.items() <= headers.items()
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-request-id"]
    assert "server" not in headers


def test_a_request_keeps_its_id(guarded: Guarded) -> None:
    assert (
        guarded.server.call("GET", "/healthz", X_Request_ID="abc.1")[2]["x-request-id"] == "abc.1"
    )
    given = guarded.server.call("GET", "/healthz", X_Request_ID="a b<script>")[2]["x-request-id"]
    assert given != "a b<script>"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1:1:1"])
def test_another_name(guarded: Guarded, host: str) -> None:
    assert guarded.status("GET", "/healthz", Host=host) in (400, 421)


def test_a_page_of_another_origin(guarded: Guarded) -> None:
    path = "/api/v1/tokens/nothing"
    own = guarded.server.url
    assert guarded.status("DELETE", path, role="admin", Origin="http://evil.example") == 403
    assert guarded.status("DELETE", path, role="admin", Origin="null") == 403
    assert guarded.status("DELETE", path, role="admin", Sec_Fetch_Site="cross-site") == 403
    assert guarded.status("DELETE", path, role="admin", Origin=own) == 404


def test_the_cookie_of_a_page(guarded: Guarded) -> None:
    cookie, path = f"splitpipe_token={guarded.tokens['admin']}", "/api/v1/tokens/nothing"
    assert guarded.status("GET", "/api/v1/tokens", Cookie=cookie) == 200
    assert guarded.status("DELETE", path, Cookie=cookie) == 403
    assert guarded.status("DELETE", path, Cookie=cookie, Origin=guarded.server.url) == 404
    assert guarded.status("GET", "/api/v1/tokens", Cookie="splitpipe_token=old") == 401
    assert guarded.status("GET", "/api/v1/tokens", Cookie='="\x7f;;=') == 401


def test_events_end_with_their_token(guarded: Guarded) -> None:
    server = guarded.server
    admin = {"Authorization": f"Bearer {guarded.tokens['admin']}"}
    body = {"name": "short", "role": "read"}
    made = json.loads(server.call("POST", "/api/v1/tokens", body=body, **admin)[1])
    request = urllib.request.Request(f"{server.url}/live/tasks")
    request.add_header("Authorization", f"Bearer {made['token']}")
    with urllib.request.urlopen(request, timeout=60) as events:
        assert events.readline() == b"retry: 1000\n"
        server.call("DELETE", f"/api/v1/tokens/{made['id']}", **admin)
        assert events.read().endswith(b": the token is worth nothing any more\n\n")


def test_no_token_in_an_address(guarded: Guarded) -> None:
    token = guarded.tokens["read"]
    for name in ("token", "access_token", "splitpipe_token"):
        assert guarded.status("GET", f"/api/v1/version?{name}={token}") == 401


@pytest.mark.parametrize("said", ["Bearer", "Bearer ", "Basic eDp5", "Bearer sp_x", "sp_x", ""])
def test_what_proves_nobody(guarded: Guarded, said: str) -> None:
    assert guarded.status("GET", "/api/v1/version", Authorization=said) in (401, 429)


def test_bodies_have_a_limit(guarded: Guarded) -> None:
    server = guarded.server
    server.token = guarded.tokens["admin"]
    try:
        assert server.call("POST", "/api/v1/tokens", body=b"x" * (2 << 20))[0] == 413
        assert chunked(server, "/api/v1/tokens", server.token) == 413
        assert (
            server.call("POST", "/api/v1/tokens", body=b"{", Content_Type="application/json")[0]
            == 422
        )
    finally:
        server.token = None


def chunked(server: Served, path: str, token: str) -> int:
    """The status of a request that does not say how large it will be, and is larger."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    try:
        body = (b"[" * 65536 for _ in range(64))
        connection.request("POST", path, body=body, headers=headers, encode_chunked=True)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_log_has_no_secret(guarded: Guarded) -> None:
    token = guarded.tokens["admin"]
    path = f"/api/v1/version?token={token}"
    guarded.status("GET", path, role="admin")
    guarded.status("GET", f"/{token}", role="admin")
    made = guarded.server.call(
        "POST", "/api/v1/tokens", body={"name": "x"}, Authorization=f"Bearer {token}"
    )
    lines = [json.loads(line) for line in guarded.server.log.splitlines()]
    assert {"time", "level", "logger", "message"} <= set(lines[-1])
    asked = [line for line in lines if line.get("path") == "/api/v1/version"]
    assert asked[-1]["token"] == "admin"
    assert asked[-1]["status"] == 200
    for secret in (*guarded.tokens.values(), json.loads(made[1])["token"]):
        assert secret not in guarded.server.log
        assert secret.split("_", 2)[2] not in guarded.server.log


def test_a_line_of_the_log_is_one_line(guarded: Guarded) -> None:
    guarded.status("GET", "/a%0AERROR%20forged")
    for line in guarded.server.log.splitlines():
        assert line.startswith("{")


def test_numbers_of_requests(guarded: Guarded) -> None:
    guarded.status("GET", "/api/v1/version", role="read")
    for path in ("/a", "/b", "/c"):
        guarded.status("GET", path)
    _, body, headers = guarded.server.call(
        "GET", "/metrics", Authorization=f"Bearer {guarded.tokens['read']}"
    )
    text = body.decode()
    assert headers["content-type"].startswith("text/plain")
    assert (
        'splitpipe_server_requests_total{method="GET",route="/api/v1/version",status="200"}' in text
    )
    assert 'route="/a"' not in text  # else anybody could make as many series as they like
    assert "process_resident_memory_bytes" in text
