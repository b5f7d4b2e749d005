"""Batches as arrays of JAX, tried by a program that has eight devices."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from splitpipe.integrations.jax import to_jax

if importlib.util.find_spec("jax") is None:  # importing it here would begin it here
    pytest.skip("needs the extra [jax]", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "tests.integrations.jax_program"


def started(devices: int, *arguments: str) -> subprocess.Popen[str]:
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", PROGRAM, *arguments],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.deadline(180)
def test_on_eight_devices() -> None:
    with started(8) as program:
        out, err = program.communicate()
    assert program.returncode == 0, err
    assert out.count("test_") == 7


@pytest.mark.long
@pytest.mark.deadline(180)
def test_global_arrays_of_two_processes(unused_port: int) -> None:
    """Run it: ``python -m pytest tests/integrations/test_jax.py -m long``."""
    address = f"127.0.0.1:{unused_port}"
    with started(2, "0", address) as one, started(2, "1", address) as other:
        ends = [program.communicate() for program in (one, other)]
    assert all(out.endswith("sums 5\n") for out, _ in ends), ends


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def test_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"splitpipe\[jax\]"):
        to_jax([])
