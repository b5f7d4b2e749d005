"""Who sees and does what, and what another site can do with a browser that is signed in."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.server.pages.browsing import watching
from tests.server.serving import Served, run_splitpipe, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.deadline(120), pytest.mark.long]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Served]:
    """A server that asks for tokens; `token` of it is an admin's."""
    made = run_splitpipe("keys", str(tmp_path / "root"), "--token", "boss", "--role", "admin")
    assert made.returncode == 0, made.stderr
    token = next(word for word in made.stdout.split() if word.startswith("sp_"))
    with serving(tmp_path / "root", "--require-token", token=token) as server:
        yield server


def token_of(served: Served, role: str) -> str:
    made = served.json("POST", "/api/v1/tokens", body={"name": role, "role": role})
    return str(made["token"])


def test_signing_in_and_out(browser: Browser, guarded: Served) -> None:
    with watching(browser, guarded.url) as web:
        web.go("/tasks")
        assert web.path == "/login"
        assert web.page.locator("nav").count() == 0
        web.expected.add(401)
        web.page.get_by_label("Token").fill("sp_0123456789abcdef_" + "x" * 43)
        web.press("Sign in")
        web.see("This token is not known")
        web.page.get_by_label("Token").fill(guarded.token or "")
        web.press("Sign in")
        assert web.path == "/tasks"
        assert (guarded.token or "?") not in web.page.url
        (cookie,) = web.page.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert web.page.evaluate("document.cookie") == ""
        web.press("Sign out", within="header")
        assert web.path == "/login"
        assert web.page.context.cookies() == []
        assert guarded.token not in guarded.log


def test_a_role_is_offered_what_it_may_do(browser: Browser, guarded: Served) -> None:
    guarded.json("POST", "/api/v1/datasets", body={"name": "news"})
    for role, offered in (
        ("read", set[str]()),
        ("run", {"Iterate", "Add column set"}),
        ("admin", {"Iterate", "Add column set", "Delete"}),
    ):
        with watching(browser, guarded.url) as web:
            web.go("/login?next=/datasets/news")
            web.page.get_by_label("Token").fill(token_of(guarded, role))
            web.press("Sign in")
            found = set(web.page.locator("main button, main a.button").all_inner_texts())
            assert found & {"Iterate", "Add column set", "Delete"} == offered
            for path, may in (("/iterate", role != "read"), ("/tokens", role == "admin")):
                web.go(path, status=200 if may else 403)
                if not may:
                    assert "token with the role" in web.text


def post(url: str, *, origin: str | None, cookie: str | None) -> int:
    data = urllib.parse.urlencode({"name": "made"}).encode()
    request = urllib.request.Request(url, data=data, method="POST")
    for name, value in (("Origin", origin), ("Cookie", cookie)):
        if value is not None:
            request.add_header(name, value)
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(request, timeout=120) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: object) -> None:
        return None


def test_no_other_site_can_send_a_form(guarded: Served) -> None:
    cookie = f"splitpipe_token={guarded.token}"
    for origin in ("https://evil.example", "null", None, "http://127.0.0.1:1"):
        assert post(f"{guarded.url}/datasets", origin=origin, cookie=cookie) == 403
    assert guarded.json("GET", "/api/v1/datasets") == []
    assert post(f"{guarded.url}/datasets", origin=guarded.url, cookie=None) == 303  # to sign in
    assert guarded.json("GET", "/api/v1/datasets") == []
    assert post(f"{guarded.url}/datasets", origin=guarded.url, cookie=cookie) == 303
    assert len(guarded.json("GET", "/api/v1/datasets")) == 1


def test_what_is_no_form_is_refused(served: Served) -> None:
    for body, kind, status in (
        (b"{}", "application/json", 415),
        (b"name=\xff", "application/x-www-form-urlencoded", 400),
        (b"name=%ff", "application/x-www-form-urlencoded", 400),
        (b"a=1&" * 6000, "application/x-www-form-urlencoded", 400),
        (b"name=" + b"x" * (2 << 20), "application/x-www-form-urlencoded", 413),
    ):
        request = urllib.request.Request(f"{served.url}/datasets", data=body, method="POST")
        request.add_header("Content-Type", kind)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=120)
        with refused.value as error:
            assert error.code == status


def test_every_page_has_its_policy(served: Served) -> None:
    for path in ("/datasets", "/datasets/nothing", "/login", "/modules"):
        _, _, headers = served.call("GET", path)
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    status, _, headers = served.call("GET", "/static/page.js")
    assert (status, headers["x-content-type-options"]) == (200, "nosniff")
    for path in ("/static/../calls.py", "/static/%2e%2e%2fcalls.py", "/static/nothing"):
        assert served.call("GET", path)[0] == 404
