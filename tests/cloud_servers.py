"""Servers of Google's, Azure's and Hugging Face's storage for tests, each a process of its own.

Responsible for: starting them on loopback, and where datasets are put there. As `tests.servers`::

    with GoogleServer() as server:
        server.create("bucket")
        open_store("gs://bucket/x", storage_options=server.options)

Google's is the package gcp-storage-emulator with conditions added (`tests/google_server.py`), or a
server that runs already: ``SPLITPIPE_TEST_GS=http://127.0.0.1:9000``, for which Google's own
storage-testbench is meant. Azure's is Microsoft's azurite, of npm: ``azurite-blob`` on the path, or
``SPLITPIPE_TEST_AZURITE=/path/to/azurite-blob``. Hugging Face's is our own imitation of the
requests that huggingface_hub makes (`tests/hub_server.py`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers import START_S, _free_port, _Server

ACCOUNT = "devstoreaccount1"
KEY = base64.b64encode(b"a key of the tests, not a secret").decode()


def azurite() -> str | None:
    """The program of Azure's emulator, if it is here."""
    return os.environ.get("SPLITPIPE_TEST_AZURITE") or shutil.which("azurite-blob")


class _Cloud(_Server):
    """What lies there, and how to come to it."""

    scheme: str

    def create(self, name: str) -> None:
        """Make a bucket, a container or a repository."""
        raise NotImplementedError

    def root(self, name: str) -> str:
        """The url of what `create` made."""
        return f"{self.scheme}://{name}"

    def options_at(self, url: str) -> dict[str, Any]:
        """The ``storage_options`` that lead here by the url of a proxy."""
        raise NotImplementedError

    @property
    def options(self) -> dict[str, Any]:
        """The ``storage_options`` that lead here."""
        return self.options_at(self.url)

    def refused(self) -> tuple[str, dict[str, Any]]:
        """A url and options with which nothing may be seen."""
        raise NotImplementedError


class GoogleServer(_Cloud):
    scheme = "gs"

    def __init__(self) -> None:
        self.running = os.environ.get("SPLITPIPE_TEST_GS", "")
        self.url = self.running or f"http://127.0.0.1:{self._begin('google_server', quiet=True)}"

    def create(self, name: str) -> None:
        _request(
            "POST",
            f"{self.url}/storage/v1/b?project=tests",
            json.dumps({"name": name}).encode(),
            {"Content-Type": "application/json"},
        )

    def options_at(self, url: str) -> dict[str, Any]:
        return {"endpoint_url": url, "token": "anon", "project": "tests"}

    def refused(self) -> tuple[str, dict[str, Any]]:
        return "gs://forbidden/data", self.options

    def close(self) -> None:
        if not self.running:
            super().close()


class AzureServer(_Cloud):
    scheme = "az"

    def __init__(self, folder: Path) -> None:
        program, port = azurite(), _free_port()
        assert program is not None
        command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
        command += ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
        )
        end = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return
            if self._process.poll() is not None or time.monotonic() > end:
                self.close()
                raise RuntimeError("azurite did not start")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)

    def create(self, name: str) -> None:
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(self._connection(self.url)) as client:
            client.create_container(name)

    def options_at(self, url: str) -> dict[str, Any]:
        return {"connection_string": self._connection(url)}

    def refused(self) -> tuple[str, dict[str, Any]]:
        wrong = base64.b64encode(b"another key").decode()
        return "az://anything/data", {"connection_string": self._connection(self.url, wrong)}

    def _connection(self, url: str, key: str = KEY) -> str:
        names = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": ACCOUNT,
            "AccountKey": key,
            "BlobEndpoint": f"{url}/{ACCOUNT}",
        }
        return ";".join(f"{name}={value}" for name, value in names.items())


class HubServer(_Cloud):
    scheme = "hf"
    token = "hf_a_test_token"

    def __init__(self) -> None:
        port = self._begin("hub_server", self.token, quiet=True)
        self.url = f"http://127.0.0.1:{port}"

    def create(self, name: str) -> None:
        _request("PUT", f"{self.url}/tests/{name}", b"", {})

    def root(self, name: str) -> str:
        return f"hf://datasets/me/{name}"

    def options_at(self, url: str) -> dict[str, Any]:
        return {"endpoint": url, "token": self.token}

    def refused(self) -> tuple[str, dict[str, Any]]:
        return "hf://datasets/me/private/data", {"endpoint": self.url, "token": "hf_another"}


def _request(method: str, url: str, data: bytes, headers: dict[str, str]) -> bytes:
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return bytes(response.read())
