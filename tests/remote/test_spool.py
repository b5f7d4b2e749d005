"""The folders of uploads: gone with their writers, also with those that were killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import splitpipe as sp
from splitpipe.cache import BlockCache
from splitpipe.cli.app import run
from splitpipe.errors import LockedError, StorageError
from splitpipe.remote.spool import Spool, remove_abandoned
from splitpipe.stores import MemoryStore

_WRITING = """
import sys, splitpipe as sp
writer = sp.DatasetWriter(sys.argv[1], bins=2, bin_nbytes=1 << 20, spool_dir=sys.argv[2])
writer.write_many([b"x" * 100] * 50)
writer.flush()
print("now", flush=True)
sys.stdin.read()
"""


class Writing:
    """A writer in a process of its own, in the middle of its work."""

    def __init__(self, url: str, spools: Path) -> None:
        command = [sys.executable, "-c", _WRITING, url, str(spools)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"now\n"

    def kill(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed writer left, to be copied."""
    folder = tmp_path_factory.mktemp("left")
    writing = Writing(f"file://{folder}/there", folder / "spools")
    writing.kill()
    (home,) = (folder / "spools").iterdir()
    assert {path.name for path in home.iterdir()} == {"files", "spool.lock"}
    return home


@pytest.fixture
def spools(tmp_path: Path, left: Path) -> Path:
    """A folder for spools that has what a killed writer left."""
    shutil.copytree(left, tmp_path / "spools" / left.name)
    return tmp_path / "spools"


@pytest.mark.deadline(120)
def test_the_next_writer_removes_what_a_killed_one_left(spools: Path, tmp_path: Path) -> None:
    at_work = Writing(f"file://{tmp_path}/other", spools)
    assert len(list(spools.iterdir())) == 1, "it removed the first, and has its own"
    with sp.DatasetWriter(MemoryStore("memory://mine"), spool_dir=spools) as writer:
        assert len(list(spools.iterdir())) == 2, "who is at work is left alone"
        writer.write(b"one")
    assert len(list(spools.iterdir())) == 1
    assert remove_abandoned(spools) == []
    at_work.kill()
    assert len(remove_abandoned(spools)) == 1
    assert list(spools.iterdir()) == []


def test_a_writer_that_ends_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool("memory://a", tmp_path)
    os.makedirs(spool.path)
    Path(spool.path, "file").write_bytes(b"x")
    with pytest.raises(LockedError):
        Spool("memory://a", tmp_path)
    spool.close()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def other_host(home: Path) -> None:
    note = json.loads((home / "spool.lock").read_bytes())
    assert note["host"] == socket.gethostname()
    (home / "spool.lock").write_text(json.dumps({**note, "host": "another"}))


def other_note(home: Path) -> None:
    (home / "spool.lock").write_bytes(b"of something else")


def no_note(home: Path) -> None:
    (home / "spool.lock").write_bytes(b"")


def no_lock(home: Path) -> None:
    (home / "spool.lock").unlink()


def a_file_more(home: Path) -> None:
    (home / "mine").write_bytes(b"x")


def a_link(home: Path) -> None:
    elsewhere = home.parent.parent / "elsewhere"
    home.rename(elsewhere)
    home.symlink_to(elsewhere)


def a_linked_lock(home: Path) -> None:
    elsewhere = home.parent.parent / "elsewhere"
    (home / "spool.lock").rename(elsewhere)
    (home / "spool.lock").symlink_to(elsewhere)


def another_name(home: Path) -> None:
    home.rename(home.with_name(home.name + "-kept"))


def of_another_user(home: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives folders away")
    os.chown(home, 12345, 12345)


@pytest.mark.parametrize(
    "changed",
    [
        other_host,
        other_note,
        no_note,
        no_lock,
        a_file_more,
        a_link,
        a_linked_lock,
        another_name,
        of_another_user,
    ],
)
def test_what_is_not_surely_ours_stays(spools: Path, changed: object) -> None:
    (home,) = spools.iterdir()
    assert callable(changed)
    changed(home)
    before = sorted(path for path in spools.parent.rglob("*"))
    assert remove_abandoned(spools) == []
    assert sorted(path for path in spools.parent.rglob("*")) == before


def test_what_was_half_removed_is_removed(spools: Path) -> None:
    (home,) = spools.iterdir()
    home.rename(home.with_name(home.name + ".0123abcd"))
    assert len(remove_abandoned(spools)) == 1
    assert list(spools.iterdir()) == []


def test_many_begin_and_end_at_once(tmp_path: Path) -> None:
    def work(number: int) -> int:
        try:
            spool = Spool(f"memory://{number % 2}", tmp_path)
        except LockedError:
            return 0
        os.makedirs(spool.path)
        Path(spool.path, "file").write_bytes(b"x")
        assert os.listdir(spool.path) == ["file"]
        spool.close()
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(400))) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_command_removes_them_too(
    spools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(spools))
    (home,) = spools.iterdir()
    BlockCache(tmp_path / "cache", 10 << 20).close()
    assert run(["cache", "prune", str(tmp_path / "cache"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed_spools"] == [str(home)]
    assert list(spools.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        Spool("memory://a", tmp_path / "file")
