"""A checkpoint is there or not, and is whole if it is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.storage import files

INLINE: dict[str, Any] = {"executor": "inline"}


@pytest.fixture
def state() -> dict[str, Any]:
    with sp.Pipeline(range(9)).shuffle(4).loader(**INLINE) as loader:
        next(loader)
        return loader.state_dict()


def test_what_was_saved_is_loaded(tmp_path: Path, state: dict[str, Any]) -> None:
    checkpoint = sp.LoaderCheckpoint(tmp_path / "new" / "data.json")
    assert not checkpoint.exists
    checkpoint.save(state)
    checkpoint.save({**state, "mine": [1, "ä"]})
    assert checkpoint.exists
    assert checkpoint.load() == {**state, "mine": [1, "ä"]}
    assert os.listdir(tmp_path / "new") == ["data.json"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(sp.StorageError, match="nothing was saved there yet"):
        sp.LoaderCheckpoint(tmp_path / "data.json").load()


def test_any_other_byte_is_seen(tmp_path: Path, state: dict[str, Any]) -> None:
    checkpoint = sp.LoaderCheckpoint(tmp_path / "data.json")
    checkpoint.save(state)
    whole = Path(checkpoint.path).read_bytes()
    for at in range(0, len(whole), 7):
        Path(checkpoint.path).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(sp.FormatError, match=r"data\.json"):
            checkpoint.load()
    for at in range(0, len(whole) - 1, 31):
        Path(checkpoint.path).write_bytes(whole[:at])
        with pytest.raises(sp.FormatError, match=r"data\.json"):
            checkpoint.load()


def test_who_is_stopped_leaves_the_one_before(
    tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = sp.LoaderCheckpoint(tmp_path / "data.json")
    checkpoint.save(state)
    for step in ("write_at", "sync"):
        with monkeypatch.context() as patch:

            def full(*_: Any) -> None:
                raise sp.StorageError(28, "no room")

            patch.setattr(files, step, full)
            with pytest.raises(sp.StorageError, match="no room"):
                checkpoint.save({**state, "items": 99})
        assert checkpoint.load() == state


def test_what_json_cannot_hold(tmp_path: Path, state: dict[str, Any]) -> None:
    checkpoint = sp.LoaderCheckpoint(tmp_path / "data.json")
    with pytest.raises(sp.ResumeError, match="what JSON cannot"):
        checkpoint.save({**state, "set": {1}})
    assert not checkpoint.exists
