"""Fixtures of the tests of iterations."""

from __future__ import annotations

from tests.server_fixtures import file_server

__all__ = ["file_server"]
