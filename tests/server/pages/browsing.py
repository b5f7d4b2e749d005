"""A real browser in front of a real server.

Responsible for: `Watched`, a page whose console, requests and answers are looked at while a test
uses it: an error in the console, or a request to another host, fails the test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["CHROMIUM", "WAIT_MS", "Watched", "browsing", "watching"]

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 20_000

_STATUS = re.compile(r"the server responded with a status of (\d+)")


class Watched:
    """A page of a server, watched: made by `watching`.

    Attributes:
        page: Playwright's.
        url: of the server.
        expected: statuses of refusals that the test asks for; the console tells of them.
        away: whether the test ends the server; the console tells of that, too.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.expected: set[int] = set()
        self.away = False
        self.wrong: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("request", self._asked)
        page.on("dialog", self._dialog)

    def _said(self, message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        if self.away and "net::ERR_" in message.text:
            return
        status = _STATUS.search(message.text)
        if status is None or int(status[1]) not in self.expected:
            self.wrong.append(f"console: {message.text} ({message.location.get('url')})")

    def _asked(self, request: Any) -> None:
        asked = urlsplit(request.url)
        if asked.scheme != "data" and asked.netloc != urlsplit(self.url).netloc:
            self.wrong.append(f"asked another host: {request.url}")

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"a script ran: {dialog.message}")
        dialog.dismiss()

    def go(self, path: str, *, status: int = 200) -> None:
        """Open a page of the server."""
        if status >= 400:
            self.expected.add(status)
        answer = self.page.goto(self.url + path)
        assert answer is not None
        assert answer.status == status, f"{path}: {answer.status}\n{self.text}"

    @property
    def path(self) -> str:
        return urlsplit(self.page.url).path

    @property
    def text(self) -> str:
        """What can be read in the page's main part."""
        return self.page.inner_text("main")

    def press(self, name: str, *, within: str = "main") -> None:
        """Press the one button, or follow the one link, that is called so."""
        part = self.page.locator(within)
        exactly = re.compile(rf"^{re.escape(name)}$")
        button = part.get_by_role("button", name=exactly).or_(
            part.get_by_role("link", name=exactly)
        )
        button.click()

    def see(self, text: str) -> None:
        """Wait until the page's main part shows a text."""
        self.page.locator("main").get_by_text(text).first.wait_for()

    def check(self) -> None:
        """Fail if anything went wrong so far."""
        assert not self.wrong, "\n".join(self.wrong)

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        root = "document.documentElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        # Without its own sandbox: tests may run as root, where Chromium refuses to have one.
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watching(browser: Browser, url: str, **options: Any) -> Iterator[Watched]:
    """A new page with a cookie jar of its own, checked at the end of the block."""
    context = browser.new_context(**options)
    try:
        watched = Watched(context.new_page(), url)
        yield watched
        watched.check()
    finally:
        context.close()
