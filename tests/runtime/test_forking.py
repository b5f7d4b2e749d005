"""What a worker begins with: little, and libraries that do not spin."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import splitpipe as sp
from tests.programs import finished

HEAVY = {
    "splitpipe.dataset",
    "splitpipe.loader",
    "splitpipe.pipeline.builder",
    "splitpipe.pipeline.plan",
    "splitpipe.schema",
    "splitpipe.storage.reader",
    "splitpipe.stores.locate",
    "splitpipe.views",
    "sqlite3",
    "ssl",
    "zmq",
}
VARIABLE = "OPENBLAS_THREAD_TIMEOUT"

PROGRAM = f"""
import os, sys
import splitpipe as sp

def told(_item):
    return sorted({HEAVY!r} & set(sys.modules)), os.environ.get({VARIABLE!r})

if __name__ == "__main__":
    with sp.Pipeline(range(2)).map(told).loader(executor="process") as loader:
        print(next(loader))
    assert {VARIABLE!r} not in os.environ or os.environ[{VARIABLE!r}] == "9"
"""


@pytest.mark.parametrize(("said", "expected"), [(None, "20"), ("9", "9")])
def test_a_worker_has_what_it_needs(tmp_path: Path, said: str | None, expected: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if said is not None:
        env[VARIABLE] = said
    done = finished([program], tmp_path, limit_s=60, environment=env)
    assert done.stdout == f"([], {expected!r})\n"


def test_names_of_packages_come_late_and_stay() -> None:
    from splitpipe import storage
    from splitpipe.storage.layout import BinLayout

    vars(storage).pop("BinLayout", None)
    assert storage.BinLayout is BinLayout
    assert vars(storage)["BinLayout"] is BinLayout
    for package in (sp, storage):
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute"):
            package.no_such_name  # noqa: B018
