"""The site is built without a warning, has every page, and asks nobody else for anything."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.reading import DOCS, PAGES, ROOT

LIMIT_S = 600  # it takes ten seconds on a machine that does nothing else
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")

needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None,
    reason="mkdocs and its theme are not installed: pip install 'splitpipe[docs]'",
)


class Loaded(HTMLParser):
    """What a browser fetches by itself to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.urls.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.urls.append(given.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@needs_mkdocs
@pytest.mark.deadline(LIMIT_S)
class TestSite:
    def test_every_page_is_there(self, site: Path) -> None:
        for page in DOCS.rglob("*.md"):
            assert (site / page.relative_to(DOCS).with_suffix(".html")).exists(), page

    def test_it_asks_no_other_host(self, site: Path) -> None:
        for path in site.rglob("*.html"):
            page = Loaded()
            page.feed(path.read_text(encoding="utf-8"))
            assert not [url for url in page.urls if "//" in url], path

    def test_it_can_be_read_on_a_disk(self, site: Path) -> None:
        """Links between pages name files, so that they work without a server."""
        text = (site / "index.html").read_text(encoding="utf-8")
        assert 'href="quickstart.html"' in text

    def test_blocks_are_shown_as_python(self, site: Path) -> None:
        assert "python runnable" not in (site / "pipelines.html").read_text(encoding="utf-8")

    def test_the_reference_shows_docstrings(self, site: Path) -> None:
        text = (site / "reference" / "pipelines.html").read_text(encoding="utf-8")
        assert 'id="splitpipe.Pipeline.flat_map"' in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        target = match["target"]
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    """Also where mkdocs is not installed."""
    written = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        name = str(page.relative_to(DOCS))
        assert re.search(rf"[ -] ?{re.escape(name)}$", written, re.MULTILINE), (
            f"docs/{name} is not in nav: of mkdocs.yml"
        )
