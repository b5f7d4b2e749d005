"""Pages for people who come from elsewhere: what stood before gives what stands after."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "migrating" / "from-mosaicml-streaming.md"


def block(kind: str) -> str:
    found = re.search(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE.name} has no {kind}"
    return found[1]


def printed(command: list[str], **environment: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=env | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.deadline(300)
def test_streaming_before_and_after(tmp_path: Path) -> None:
    """Run it: ``STREAMING_PYTHON=/its/bin/python python -m pytest tests/integrations -m long``."""
    python = os.environ.get("STREAMING_PYTHON")
    if python is None:
        pytest.skip("needs a Python with mosaicml-streaming, named by STREAMING_PYTHON")
    folder = tmp_path / "kept"
    folder.mkdir()
    after = block("python runnable").replace(
        "with tempfile.TemporaryDirectory() as folder:", f"for folder in [{str(folder)!r}]:"
    )
    (tmp_path / "after.py").write_text(after)
    here = printed([sys.executable, str(tmp_path / "after.py")], PYTHONPATH=str(ROOT))
    code = block("python") + (
        "\n\nif __name__ == '__main__':\n"
        f"    print('sum of the labels:', before({str(folder / 'mds')!r}))\n"
    )
    (tmp_path / "before.py").write_text(code)
    assert printed([python, str(tmp_path / "before.py")]) == here == "sum of the labels: 124750\n"
