"""The servers that these tests talk to."""

from tests.server_fixtures import bucket, file_server, patient, s3_proxy, s3_server

__all__ = ["bucket", "file_server", "patient", "s3_proxy", "s3_server"]
