"""Servers on loopback, for the tests of files that are fetched."""

from __future__ import annotations

from tests.server_fixtures import bucket, file_server, patient, s3_proxy, s3_server

__all__ = ["bucket", "file_server", "patient", "s3_proxy", "s3_server"]
