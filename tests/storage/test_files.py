"""Files and folders, where others make them at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from splitpipe.errors import StorageError
from splitpipe.storage import files


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, path: Path, act: Callable[[], None], *, call: int
) -> None:
    """Let somebody else act before the `call`-th time that `path` is to be made."""
    calls = []
    mkdir = os.mkdir

    def made(asked: str, *more: int) -> None:
        if asked == str(path):
            calls.append(asked)
            if len(calls) == call:
                act()
        mkdir(asked, *more)

    monkeypatch.setattr(os, "mkdir", made)


@pytest.mark.parametrize("call", [1, 2])
def test_a_folder_that_somebody_else_makes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    path = tmp_path / "above" / "folder"

    def by_another() -> None:
        monkeypatch.undo()
        path.mkdir(parents=True)

    meanwhile(monkeypatch, path, by_another, call=call)
    assert files.make_directory(str(path)) is False
    assert path.is_dir()


def test_a_folder_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    assert files.make_directory(str(path)) is True
    assert files.make_directory(str(path)) is False


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot create the directory"):
        files.make_directory(str(tmp_path / "file"))
