"""Programs as a user starts them: a Python of their own, in a folder of their own.

Responsible for: `finished`. It runs this tree, whatever is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def finished(
    arguments: Sequence[str | Path],
    folder: Path,
    *,
    limit_s: float,
    warnings: str = "error",
    environment: Mapping[str, str] = os.environ,
) -> subprocess.CompletedProcess[str]:
    """What became of ``python ARGUMENTS`` in `folder`: it ended well, and within `limit_s`."""
    done = subprocess.run(
        [sys.executable, "-W", warnings, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
