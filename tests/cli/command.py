"""Running the command `splitpipe` as a user would: as a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 50


def arguments(*words: str | Path) -> list[str]:
    """The command line; warnings are errors in the program too."""
    return [sys.executable, "-W", "error", "-m", "splitpipe", *map(str, words)]


def environment(**changes: str) -> Mapping[str, str]:
    """Ours, with this tree's splitpipe first and with one thread for linear algebra.

    More threads spin while they wait, and on a busy machine that takes longer than it saves.
    """
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **ours, **changes}


def splitpipe(
    *words: str | Path, cwd: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(*words),
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
