"""A program for an installed splitpipe with its core dependencies alone; it prints ``well``.

Responsible for: that what was installed reads, writes, runs and goes on. It knows nothing of the
tree that it lies in: ``python -I smoke.py`` in any folder that may be written to.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import splitpipe as sp
from splitpipe.storage.native import kernel
from splitpipe.transport.native import kernel as moving

LOADED = set(sys.modules)


def decoded(record: bytes) -> np.ndarray:
    return np.frombuffer(record, np.float32)


def described(record: bytes) -> dict[str, object]:
    values = decoded(record)
    return {
        "values": values,
        "large": np.tile(values, 500),
        "is": ("record", len(record), values[0]),
    }


def halves(items: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for item in items:
        yield item[:8]
        yield item[8:]


def said(call: Callable[[], object]) -> str:
    try:
        call()
    except ImportError as error:
        return str(error)
    return "nothing"


def main() -> None:
    """Do everything once."""
    assert version("splitpipe") == sp.__version__
    assert not {"zmq", "ray", "torch", "starlette", "pyarrow", "psutil"} & LOADED
    rng = np.random.default_rng(0)
    with sp.DatasetWriter("train", bins=4) as writer:
        writer.write_many(rng.random(16, dtype=np.float32).tobytes() for _ in range(200))
    with sp.open_dataset("train") as dataset:
        pipe = (
            sp.Pipeline(dataset, shuffle="global", seed=1)
            .map(decoded, workers=2)
            .through(halves, workers=1)
            .batch(32)
        )
        with pipe.loader(executor="inline", epochs=2) as loader:
            truth = [batch.tobytes() for batch in loader]
        for transport in ("pipe", "zmq"):
            with pipe.loader(epochs=2, transport=transport) as loader:
                found = [next(loader).tobytes() for _ in range(5)]
                state = loader.state_dict()
            with pipe.loader(epochs=2, transport=transport, state=state) as loader:
                found += [batch.tobytes() for batch in loader]
            assert found == truth, transport
        records = sp.Pipeline(dataset).map(described, workers=2)
        with records.loader(executor="inline") as inline, records.loader() as loader:
            for one, other in zip(inline, loader, strict=True):
                assert repr(one) == repr(other)
                assert np.array_equal(one["large"], other["large"])
        assert sp.check_dataset("train").ok
        if find_spec("pyarrow") is None:
            assert "splitpipe[table]" in said(dataset.to_arrow)
    if find_spec("typer") is None:
        command = [str(Path(sys.executable).with_name("splitpipe")), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done
        assert "pip install 'splitpipe[cli]'" in done.stderr
    wanted = os.environ.get("SMOKE_KERNEL")
    assert wanted in (None, kernel.NAME), kernel.NAME
    assert wanted in (None, moving.NAME), moving.NAME
    print("well")


if __name__ == "__main__":
    main()
