"""Every page: found by following links, looked at in light, dark and on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

import splitpipe as sp
from tests.server.pages.browsing import Watched, watching
from tests.server.pages.data import film, make, place_modules
from tests.server.serving import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.deadline(180)

PHONE = {"width": 375, "height": 700}
DESK = {"width": 1280, "height": 800}

NAMELESS = """
() => [...document.querySelectorAll('a, button, input:not([type=hidden]), select, textarea, svg,' +
  ' audio, video, img, progress, nav, section')].filter((one) => {
  if (!one.checkVisibility() || one.getAttribute('aria-hidden') === 'true') return false;
  if (one.closest('[aria-hidden=true]')) return false;
  const by = (one.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean);
  const told = by.map((id) => (document.getElementById(id) || {}).textContent || '').join('');
  const labels = [...(one.labels || [])].map((label) => label.textContent).join('');
  const name = (one.getAttribute('aria-label') || '') + told + labels + (one.alt || '') +
    (['A', 'BUTTON'].includes(one.tagName) ? one.textContent : '') +
    (one.tagName === 'A' && one.querySelector('img') ? 'img' : '');
  return !name.trim();
}).map((one) => one.outerHTML.slice(0, 120))
"""
TWICE = """
() => {
  const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
  return ids.filter((id, at) => ids.indexOf(id) !== at);
}
"""
DANGLING = """
() => [...document.querySelectorAll('[aria-describedby], [aria-labelledby], label[for]')].flatMap(
  (one) => ['aria-describedby', 'aria-labelledby', 'for'].flatMap(
    (key) => (one.getAttribute(key) || '').split(' ').filter(Boolean)
  )
).filter((id) => !document.getElementById(id))
"""


SQUEEZED = """
() => [...document.querySelectorAll('td, th')].filter((one) => {
  const { width, height } = one.getBoundingClientRect();
  return width > 4 && height > 3 * width;  // fewer: hidden for all but screen readers
}).map((one) => one.textContent.trim().slice(0, 40))
"""


def crawl(web: Watched) -> list[str]:
    """Every page that a link leads to; of pages that differ in their query only, one or two."""
    found, seen = ["/datasets"], set[str]()
    for path in found:
        web.go(path)
        links = web.page.eval_on_selector_all("a[href]", "all => all.map((one) => one.href)")
        for link in links:
            parts = urlsplit(link)
            shape = parts.path + ("?" if parts.query else "")
            if parts.path.startswith("/api/") or shape in seen or parts.fragment:
                continue
            seen.add(shape)
            found.append(parts.path + (f"?{parts.query}" if parts.query else ""))
    return found


def prepare(served: Served) -> str:
    """A server with something on every page; returns an iteration's id."""
    place_modules(served.root)
    (served.root / "modules" / "broken.py").write_text("import nothing_of_this_name\n")
    served.json("POST", "/api/v1/modules/reload")
    make(served)
    with sp.connect(served.url) as client:
        with client.iterate(
            "news", batch_size=8, filters=[("long_enough", {"least": 6})]
        ) as loader:
            next(iter(loader))
            identity = str(client.iterations.list()[0]["id"])
        task = served.json("POST", "/api/v1/datasets/news/statistics")
        client.tasks.wait(task["id"])
        client.tokens.create("somebody", role="read")
    return identity


def make_wide(served: Served) -> None:
    """A dataset of more columns than a page has room for, with one empty text."""
    row = {f"number_{at}": at / 7 for at in range(6)} | {"bytes": b"12", "film": film(2)}
    with sp.connect(served.url) as client:
        client.datasets.create("wide")
        with client.writer("wide", "main") as writer:
            writer.write_many([{**row, "text": "word " * at} for at in range(3)])


def look(web: Watched, path: str) -> dict[str, Any]:
    """What is wrong with a page for those who do not see it, or see it on a phone."""
    page = web.page
    return {
        "headings": page.locator("h1").count() - 1,
        "nameless": page.evaluate(NAMELESS),
        "twice": page.evaluate(TWICE),
        "dangling": page.evaluate(DANGLING),
        "squeezed": page.evaluate(SQUEEZED),
        "overflow": max(0, web.overflow()),
        "title": path if page.title() in ("", " · splitpipe") else 0,
    }


def test_every_page_in_every_look(browser: Browser, served: Served, tmp_path: Path) -> None:
    identity = prepare(served)
    with watching(browser, served.url, viewport=DESK, color_scheme="light") as web:
        paths = crawl(web)
    for wanted in (
        "/datasets",
        "/datasets/news",
        "/datasets/news/delete",
        "/datasets/news/records",
        "/datasets/news/statistics",
        "/datasets/news/preprocess",
        "/datasets/news/column-sets/main/remove",
        "/iterate?dataset=news",
        "/iterations",
        f"/iterations/{identity}",
        f"/iterations/{identity}/delete",
        "/tasks",
        "/modules",
        "/tokens",
    ):
        assert wanted in paths
    assert any(path.startswith("/tasks/") for path in paths)
    assert any(path.endswith("/revoke") for path in paths)
    make_wide(served)
    paths.append("/datasets/wide/records")
    looks: list[dict[str, Any]] = [
        {"viewport": DESK, "color_scheme": "light"},
        {"viewport": PHONE, "color_scheme": "dark", "has_touch": True},
    ]
    for options in looks:
        with watching(browser, served.url, **options) as web:
            for path in [*paths, "/login"]:
                web.go(path)
                wrong = {key: value for key, value in look(web, path).items() if value}
                assert not wrong, f"{path} {options}"


def test_pages_that_are_not_there(browser: Browser, served: Served) -> None:
    with watching(browser, served.url) as web:
        for path in ("/datasets/nothing", "/iterations/nothing", "/tasks/nothing"):
            web.go(path, status=404)
            assert "nothing" in web.text
        web.go("/datasets?said=<script>alert(1)</script>")
        assert "alert" not in web.text


def test_a_page_says_when_it_is_old(browser: Browser, served: Served) -> None:
    make(served, count=3)
    with watching(browser, served.url) as web:
        note = web.page.locator("#stale")
        web.go("/datasets/news")
        assert not note.is_visible()
        web.away = True
        served.kill()
        web.see("The server does not answer.")
        served.start()
        note.wait_for(state="hidden")
        with sp.connect(served.url) as client:
            client.datasets.delete("news")
        web.see("not there any more")


def test_dark_is_dark(browser: Browser, served: Served) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with watching(browser, served.url, color_scheme=scheme) as web:
            web.go("/datasets")
            grounds[scheme] = web.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light, dark = (sum(map(int, one[4:-1].split(","))) for one in grounds.values())
    assert light > 600
    assert dark < 120


def test_a_walk_with_the_keyboard(browser: Browser, served: Served) -> None:
    make(served, count=3)
    place = "() => { const a = document.activeElement; const r = a.getBoundingClientRect();"
    place += " return [a.tagName, a.textContent.trim().slice(0, 30), r.width > 0 && r.height > 0,"
    place += " getComputedStyle(a).outlineStyle !== 'none']; }"
    with watching(browser, served.url) as web:
        page = web.page
        web.go("/datasets")
        page.keyboard.press("Tab")
        assert page.evaluate(place)[1] == "Skip to content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"

        web.go("/datasets")
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            tag, text, visible, outlined = page.evaluate(place)
            if tag == "BODY":
                break
            assert visible, text
            assert outlined, f"{tag} {text} does not show that it has the focus"
            reached.append((tag, text))
        wanted = page.locator("a, button, input, select").count()
        assert len(reached) == wanted
        # All of it can be done without a mouse.
        page.get_by_label("Name", exact=True).focus()
        page.keyboard.type("typed")
        page.keyboard.press("Enter")
        page.wait_for_url("**/datasets/typed*")
