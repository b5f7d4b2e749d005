"""A catalog, modules and tasks of their own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from splitpipe.server.catalog import Datasets, Locations
from splitpipe.server.modules.registry import Modules
from splitpipe.server.state import Database, open_database
from splitpipe.server.tasks import Tasks

MODULES = '''
import os
import time
import numpy as np
from splitpipe.server.modules import filter, preprocessor

@preprocessor
def length(batch, *, times: int = 1):
    """How long texts are."""
    return {"length": np.array([times * len(text) for text in batch["text"]], np.int32)}

@filter
def even(sample):
    """Even numbers."""
    return sample["n"] % 2 == 0

@preprocessor
def breaks(batch, *, at: int):
    """Fails at a number."""
    if at in list(batch["n"]):
        raise ValueError(f"no {at} here")
    return {"double": [2 * n for n in batch["n"]]}

@preprocessor
def prints(batch):
    """Says what looks like a message."""
    print('{"result": {"records": 99, "written": 99}}', flush=True)
    os.write(1, b'{"error": {"message": "no", "notes": []}}\\n')
    return {"same": batch["n"]}

@preprocessor
def fewer(batch):
    """Loses a sample."""
    return {"less": list(batch["n"])[1:]}

@preprocessor
def waits(batch, *, flag: str):
    """Waits at number 50 until there is a file."""
    while 50 in list(batch["n"]) and not os.path.exists(flag):
        time.sleep(0.01)
    return {"double": [2 * n for n in batch["n"]]}

@preprocessor
def dies(batch):
    """Ends its process."""
    os._exit(3)
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "data").mkdir(parents=True)
    (tmp_path / "root" / "modules").mkdir()
    (tmp_path / "root" / "modules" / "mine.py").write_text(MODULES)
    return tmp_path / "root"


@pytest.fixture
def database(root: Path) -> Iterator[Database]:
    with open_database(f"sqlite:///{root}/state.sqlite") as opened:
        yield opened


@pytest.fixture
def catalog(root: Path, database: Database) -> Iterator[Datasets]:
    locations = Locations(str(root / "data"), cache=str(root / "cache"))
    made = Datasets(database, locations, indices=str(root / "indices"))
    yield made
    made.close()


@pytest.fixture
def modules(root: Path) -> Modules:
    made = Modules(root / "modules", root / "run" / "modules")
    made.load()
    assert not made.errors
    return made


@pytest.fixture
def tasks(database: Database, catalog: Datasets, modules: Modules) -> Iterator[Tasks]:
    made = Tasks(database, catalog, modules=modules)
    yield made
    made.close()
