"""The power fails at any moment of a session, and the disk kept some of what was not synced.

Whatever it kept: what is found opens as the last commit, or as the one under way, exactly; after a
`commit` returned, as that one. The next writer goes on from it.

In the suite some of the disks of each moment are tried. Many more, a quarter of an hour:

    SPLITPIPE_SAFETY=long python -m pytest tests/safety/test_power.py
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from splitpipe.dataset import open_dataset
from splitpipe.errors import SplitpipeError
from splitpipe.storage import files
from splitpipe.storage.session import Session as WritingSession
from splitpipe.testing.faults import Disk, Recorder, Tap
from tests.safety.sessions import FIRST, SESSIONS, Places, Records, Session, spread, write
from tests.safety.truth import assert_is, assert_next_writer_works, found_at

LONG = os.environ.get("SPLITPIPE_SAFETY") == "long"
SAMPLES = 60 if LONG else 3


def recorded(session: Session, path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What a session did to its disk, with a mark after every commit that returned."""
    recorder = Recorder(path.parent)
    commit = WritingSession.commit

    def marked(session: WritingSession) -> None:
        commit(session)
        recorder.mark()

    with monkeypatch.context() as patch, Tap(path.parent, recorder):
        patch.setattr(WritingSession, "commit", marked)
        session.run(path)
    return recorder


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def survives(disk: Disk, path: Path, outcomes: Sequence[Records | None]) -> int | None:
    """Which of these the disk holds, exactly; ``None`` if it cannot be read."""
    disk.put(path.parent)
    try:
        with open_dataset(path) as ds:
            found = tuple(ds)
    except SplitpipeError:
        return 0 if outcomes[0] is None else None
    if not found and outcomes[0] is None:
        return 0
    assert found in outcomes, "wrong records"
    return outcomes.index(found)


def fail_everywhere(
    recorder: Recorder, session: Session, path: Path, *, ordered: bool
) -> Counter[str]:
    """Try the disks of all moments; how many showed what."""
    rng = random.Random(5)
    seen: set[tuple[int, int]] = set()
    counts: Counter[str] = Counter()
    failures = list(recorder.failures())
    for moment in spread(len(failures), len(failures) if LONG else 24, first=len(failures) % 3):
        failure = failures[moment]
        # What was acknowledged, or the commit under way.
        outcomes = session.outcomes[failure.acknowledged : failure.acknowledged + 2]
        for disk in failure.disks(rng, samples=SAMPLES, ordered=ordered):
            if (disk.identity, failure.acknowledged) in seen:
                continue
            seen.add((disk.identity, failure.acknowledged))
            found = survives(disk, path, outcomes)
            counts["lost" if found is None else "new" if found else "old"] += 1
            if found is not None and len(seen) % (3 if LONG else 16) == 0:
                assert found_at(path, outcomes) == found
                assert_next_writer_works(path, [outcomes[found]], tidy=False)
    return counts


@pytest.mark.deadline(3600 if LONG else 60)
@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_names_reach_the_disk_in_order(
    places: Places, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with every file system that has a journal."""
    path = places.new(session)
    recorder = recorded(session, path, monkeypatch)
    counts = fail_everywhere(recorder, session, path, ordered=True)
    assert not counts["lost"]
    assert counts["old"]
    assert counts["new"] or session.after == session.before


@pytest.mark.deadline(3600 if LONG else 60)
@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_names_reach_the_disk_in_any_order(
    places: Places, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As POSIX allows."""
    path = places.new(session)
    recorder = recorded(session, path, monkeypatch)
    counts = fail_everywhere(recorder, session, path, ordered=False)
    assert not counts["lost"]


def test_the_way_to_a_new_dataset_is_on_the_disk_as_well(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    path = tmp_path / "new" / "newer" / "ds"
    with Tap(tmp_path, recorder):
        write(path, FIRST)
    *_, last = recorder.failures()
    last.kept([]).put(tmp_path)
    assert_is(path, FIRST)


class TestTheSimulation:
    """It is as the real disk where nothing fails, and it finds what it is meant to find."""

    @pytest.mark.parametrize("session", SESSIONS, ids=str)
    def test_without_a_failure_it_has_what_the_disk_has(
        self, places: Places, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = places.new(session)
        recorder = recorded(session, path, monkeypatch)
        *_, last = recorder.failures()
        real = {
            str(entry.relative_to(path.parent)): entry.read_bytes()
            for entry in path.parent.rglob("*")
            if entry.is_file()
        }
        simulated = last.kept(last.pending).files
        assert simulated == real

    @pytest.mark.parametrize("forgotten", [".bin", ".index", ".json.new"])
    def test_a_forgotten_sync_is_found(
        self, places: Places, monkeypatch: pytest.MonkeyPatch, forgotten: str
    ) -> None:
        sync = files.sync

        def forgetful(descriptor: int, path: str) -> None:
            if not path.endswith(forgotten):
                sync(descriptor, path)

        session = SESSIONS[1]
        path = places.new(session)
        monkeypatch.setattr(files, "sync", forgetful)
        recorder = recorded(session, path, monkeypatch)
        assert fail_everywhere(recorder, session, path, ordered=True)["lost"]

    def test_a_forgotten_sync_of_the_directory_is_found(
        self, places: Places, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = SESSIONS[1]
        path = places.new(session)
        monkeypatch.setattr(files, "sync_directory", lambda path: None)
        recorder = recorded(session, path, monkeypatch)
        with pytest.raises(AssertionError, match="wrong records"):
            fail_everywhere(recorder, session, path, ordered=True)
