"""The process: how it starts, what keeps it from that, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splitpipe.cli.serve import _ports
from splitpipe.errors import SplitpipeError
from splitpipe.server.app.serving import END_S, serve
from splitpipe.server.security import make_keys
from splitpipe.server.service import open_service
from splitpipe.server.settings import Settings, open_root
from splitpipe.server.state import open_database
from splitpipe.server.state.tables import meta
from tests.server.serving import Served, environment, run_splitpipe, serving


def test_it_answers(served: Served) -> None:
    assert served.json("GET", "/healthz") == {"status": "ok"}
    assert served.json("GET", "/api/v1/version")["api"] == 1
    said = json.loads((served.root / "run" / "server.json").read_text())
    assert said == {"pid": served.pid, "url": served.url}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_good_order(served: Served, number: signal.Signals) -> None:
    # `stop` has a deadline. Where nothing waits there is no second in it, see the next test.
    code = served.stop(number)
    if code == -signal.SIGALRM:
        pytest.skip(f"this machine needs more than {END_S} s for it:\n{served.log[-2000:]}")
    assert code in (128 + number, -number)
    assert "Traceback" not in served.log
    assert not (served.root / "run" / "server.json").exists()


def test_an_end_waits_for_nothing(tmp_path: Path) -> None:
    """All that is opened is closed in far less than a second of the processor's time."""
    root = open_root(tmp_path / "root")
    url = f"sqlite:///{root.path / 'state.sqlite'}"
    with open_service(Settings(root=root, database_url=url, modules=root.modules)) as service:
        assert service.health() == {"status": "ok"}
        begun_s, processor_s = time.monotonic(), time.process_time()
    assert time.process_time() - processor_s < 3.0
    assert time.monotonic() - begun_s < 20.0  # a fifth of a second where nobody else works


HANGS = """
import ctypes, os, signal, sys
from splitpipe.server.app import serving
serving.END_S = 1
serving._set_deadline()
print("hangs", flush=True)
ctypes.PyDLL(None).pause()  # in C, and nobody else gets to run
"""


def test_an_end_that_hangs_in_c_is_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "hangs\n"
    assert done.returncode == -signal.SIGALRM
    assert 'File "<string>", line 7 in <module>' in done.stderr  # where it was


def test_it_goes_on_after_a_kill(served: Served) -> None:
    made = served.json("POST", "/api/v1/tokens", body={"name": "x"})
    served.kill()
    served.start()
    assert [token["id"] for token in served.json("GET", "/api/v1/tokens")] == [made["id"]]


def refused(root: Path, *, port: int = 0, host: str = "127.0.0.1") -> str:
    """Try to serve in this process, which nothing may come of but a message."""
    where = open_root(root)
    url = f"sqlite:///{where.path / 'state.sqlite'}"
    settings = Settings(root=where, host=host, port=port, database_url=url, modules=where.modules)
    with pytest.raises(SplitpipeError) as caught:
        serve(settings, ready=lambda *_: pytest.fail("it serves"))
    return str(caught.value)


def test_a_second_server_of_a_folder_is_refused(served: Served) -> None:
    assert f"is served by another process (pid {served.pid})" in refused(served.root)


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(tmp_path / "root", port=port)
    assert f"port {port} of 127.0.0.1 is in use" in said
    assert "--port 0" in said


@pytest.mark.parametrize("host", ["198.51.100.7", "nothing.invalid"])
def test_an_address_of_another_machine(tmp_path: Path, host: str) -> None:
    assert "no address of this machine" in refused(tmp_path / "root", host=host)


def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    root = open_root(tmp_path / "root").path
    with (
        open_database(f"sqlite:///{root / 'state.sqlite'}") as database,
        database.write() as connection,
    ):
        connection.execute(meta.update().values(value="99"))
    said = refused(root)
    assert "has version 99 of the schema" in said
    assert "newer splitpipe" in said


def test_beyond_loopback_needs_keys_and_a_token(tmp_path: Path) -> None:
    root = tmp_path / "root"
    said = refused(root, host="0.0.0.0")
    assert f"keys for the feed (`splitpipe keys {root}`)" in said
    assert f"a token (`splitpipe keys {root} --token NAME" in said
    make_keys(open_root(root).keys)
    said = refused(root, host="0.0.0.0")
    assert "needs a token" in said


@pytest.mark.long
def test_with_both_it_serves_beyond_loopback(tmp_path: Path) -> None:
    made = run_splitpipe("keys", str(tmp_path / "root"), "--token", "me", "--json")
    with serving(tmp_path / "root", "--host", "0.0.0.0") as server:
        server.url = f"http://127.0.0.1:{server.port}"
        assert server.call("GET", "/api/v1/version")[0] == 401
        server.token = json.loads(made.stdout)["token"]
        assert server.call("GET", "/api/v1/version")[0] == 200


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    done = run_splitpipe("serve", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("splitpipe: ")
    assert done.stderr.count("\n") == 1


def test_a_wrong_range_of_ports() -> None:
    assert _ports("8100-8199", "127.0.0.1") == (8100, 8199)
    assert _ports("7000", "127.0.0.1") == (7000, 7000)
    assert _ports(None, "127.0.0.1") == (0, 0)
    assert _ports(None, "0.0.0.0") == (8100, 8199)
    for wrong in ("9-1", "0-5", "x", "1-99999", "-1", ""):
        with pytest.raises(SplitpipeError, match="no range of ports"):
            _ports(wrong or "-", "127.0.0.1")
