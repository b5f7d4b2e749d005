"""A PostgreSQL of a test's own, where Debian's package is installed.

Responsible for: `cluster`, made by ``initdb`` in a temporary folder, run by an unprivileged user
(PostgreSQL refuses root), reached over a socket in that folder alone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["cluster"]

_READY_S = 120.0


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve())
    if not found:
        pytest.skip("PostgreSQL is not installed")
    return found[-1].parent


def _user() -> str | None:
    """Whom it runs as: somebody else than root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    pytest.skip("PostgreSQL refuses root, and there is no other user")


@contextmanager
def cluster() -> Iterator[str]:
    """Run one, and give the URL of an empty database."""
    pytest.importorskip("psycopg", reason="needs the extra [postgresql]")
    programs, user = _programs(), _user()
    # Not in pytest's folder, which other users may not enter; and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="splitpipe-pg-") as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        _run(
            [str(programs / "initdb"), "-D", str(folder / "data"), "-U", "me", "-A", "trust"], user
        )
        # Processes that it starts now and then would look like what a test left behind.
        options = (
            f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off "
            "-c autovacuum=off -c max_logical_replication_workers=0"
        )
        server = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(folder / "data"), *options.split()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            user=user,
            cwd=folder,
        )
        try:
            url = f"postgresql://me@/postgres?host={folder}"
            _wait(server)
            _wait_for_helpers(url)
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # ends connections, too
            server.communicate(timeout=_READY_S)


def _run(command: list[str], user: str | None) -> None:
    done = subprocess.run(
        command, user=user, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr


def _wait(server: subprocess.Popen[str]) -> None:
    """Return once it says that it is ready."""
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "ready to accept connections" in line:
            return
    raise AssertionError("".join(said))


def _wait_for_helpers(url: str) -> None:
    """Return once it has started all processes of its own."""
    import psycopg

    with psycopg.connect(url) as connection:
        asked = "select count(*) from pg_stat_activity where backend_type = 'walwriter'"
        pause = threading.Event()
        while connection.execute(asked).fetchone() != (1,):
            pause.wait(0.05)
            connection.rollback()
