"""What was matched is kept, also where several keep the same at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from splitpipe.server.catalog.kept import keep, kept, note, noted


def test_many_keep_the_same_at_once(tmp_path: Path) -> None:
    folder = str(tmp_path / "a" / "matched")
    rows = np.arange(3000).reshape(3, 1000)

    def both(_: int) -> bool:
        told = keep(folder, "ab", rows)
        note(folder, "ab", {"rows": 1000})
        found = kept(folder, told)
        return found is not None and bool((found == rows).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(both, range(200)))
    assert noted(folder, "ab") == {"rows": 1000}
    assert sorted(os.listdir(folder)) == ["ab.json", "ab.rows"]


def test_what_a_killed_one_left_goes_in_time(tmp_path: Path) -> None:
    for name, age_s in ((".new-old", 7200), (".new-now", 0)):
        (tmp_path / name).write_bytes(b"half")
        at = os.stat(tmp_path / name).st_mtime - age_s
        os.utime(tmp_path / name, (at, at))
    keep(str(tmp_path), "ab", np.arange(2).reshape(1, 2))
    assert sorted(os.listdir(tmp_path)) == [".new-now", "ab.rows"]
