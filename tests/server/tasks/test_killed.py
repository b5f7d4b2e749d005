"""A server that is killed while a task is at work."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.server.catalog import Datasets, open_snapshot
from splitpipe.server.modules.registry import Modules
from splitpipe.server.state import Database
from splitpipe.server.tasks import Tasks

ROOT = Path(__file__).resolve().parents[3]

# A server's part that has to do with tasks; says the pid of the task's process when it is at work.
PROGRAM = """
import sys, threading
from pathlib import Path
from splitpipe.server.catalog import Datasets, Locations
from splitpipe.server.modules.registry import Modules
from splitpipe.server.state import open_database
from splitpipe.server.tasks import Tasks
root, flag = Path(sys.argv[1]), sys.argv[2]
database = open_database(f"sqlite:///{root}/state.sqlite")
catalog = Datasets(database, Locations(str(root / "data")), indices=str(root / "indices"))
modules = Modules(root / "modules", root / "run" / "modules")
modules.load()
tasks = Tasks(database, catalog, modules=modules)
module = {"name": "waits", "params": {"flag": flag}}
params = {"dataset": "d", "column_set": "a", "preprocessors": [module], "batch_size": 10}
task = tasks.start("preprocess", params)["id"]
while tasks._known[task].child is None:
    pass
print(task, tasks._known[task].child.pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.long
@pytest.mark.deadline(180)
def test_its_task_ends_with_it_and_goes_on_with_the_next(
    root: Path, database: Database, catalog: Datasets, modules: Modules, tmp_path: Path
) -> None:
    with sp.DatasetWriter(root / "data" / "m") as writer:
        writer.write_many({"n": n, "text": "x" * (n % 7)} for n in range(100))
    catalog.create("d")
    catalog.add_column_set("d", "main", location="m", format="bins")
    flag = tmp_path / "flag"
    command = [sys.executable, "-c", PROGRAM, str(root), str(flag)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as server:
        assert server.stdout is not None
        task, pid = server.stdout.readline().split()
        handle = os.pidfd_open(int(pid))
        os.kill(server.pid, signal.SIGKILL)
    try:
        assert select.select([handle], [], [], 60.0)[0], "the task outlived its server"
    finally:
        os.close(handle)
    flag.touch()
    tasks = Tasks(database, catalog, modules=modules)
    try:
        assert tasks.get(task)["status"] in ("queued", "running")
        tasks.resume()
        assert tasks.wait(task, 100.0)["status"] == "done"
    finally:
        tasks.close()
    rows: list[Any]
    with open_snapshot(catalog.pin("d")) as opened:
        rows = list(opened)
    assert [row["double"] for row in rows] == [2 * n for n in range(100)]
