"""Fixtures of the page's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.server.pages.browsing import browsing

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser of this test alone: its processes come and go, and none may be left."""
    with browsing() as found:
        yield found
