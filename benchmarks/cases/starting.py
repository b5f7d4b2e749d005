"""How long until something comes, and until everything is gone: each round a fresh process.

Rules: the system's modules are imported and nothing of it has run when the clock starts; what a
first use starts once a process (a fork server, say) is part of the first batch.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.base import Case, Context, Metric, Metrics, PipelineSystem, WrongResult
from benchmarks.cases.throughput import Closing
from benchmarks.work import ArrayWork

__all__ = ["CASES"]

PEERS = ("spdl", "torch", "splitdataloader", "torchdata", "grain", "zmq", "mpqueue")
SMALL = ArrayWork((16, 64, 64, 3), "uint8")
COUNT = 50

# What a user of the system writes at the top of his script, and then what he names of it: a package
# may import its parts only when they are first named, and that is no gift.
IMPORTS = {
    "splitpipe": "import splitpipe",
    "torch": "import torch.utils.data",
    "spdl": "import spdl.pipeline",
    "splitdataloader": "import splitdataloader",
    "grain": "import grain",
    "torchdata": "import torchdata.nodes",
    "datasets": "import datasets",
    "zmq": "import zmq",
    "joblib": "import joblib",
}
NAMED = {"splitpipe": "splitpipe.Pipeline; splitpipe.open_dataset"}


def first_batch(system: PipelineSystem, context: Context) -> Iterator[Metrics]:
    """From describing to the first batch; from one epoch to the next; from close to closed."""
    yield {"batches": COUNT, "batch_nbytes": SMALL.nbytes}
    begin = time.perf_counter()
    run = system.batches(SMALL, COUNT, workers=context.workers, epochs=2)
    with Closing(run):
        items = iter(run)
        batch = next(items)
        first_s = time.perf_counter() - begin
        SMALL.check(batch, 0)
        del batch
        rest = sum(1 for _ in items)
        begin = time.perf_counter()
        second = iter(run)
        batch = next(second)
        second_s = time.perf_counter() - begin
        SMALL.check(batch, 0)
        del batch
        rest += sum(1 for _ in second)
        begin = time.perf_counter()
    close_s = time.perf_counter() - begin
    if rest != 2 * (COUNT - 1):
        raise WrongResult(f"{rest + 2} batches came in two epochs, not {2 * COUNT}")
    yield {"first_ms": first_s * 1e3, "second_epoch_ms": second_s * 1e3, "close_ms": close_s * 1e3}


def early_close(system: PipelineSystem, context: Context) -> Iterator[Metrics]:
    """Close in the middle of an epoch, with everything in flight."""
    yield {"batches": 1000, "batch_nbytes": SMALL.nbytes}
    run = system.batches(SMALL, 1000, workers=context.workers)
    with Closing(run):
        items = iter(run)
        for number in range(20):
            SMALL.check(next(items), number)
        begin = time.perf_counter()
    yield {"close_ms": (time.perf_counter() - begin) * 1e3}


def import_time(system: PipelineSystem, context: Context) -> Iterator[Metrics]:
    """Importing it in a new interpreter that already has numpy."""
    name = context.directory.name.partition("@")[0]
    clock = "time.perf_counter()"
    named = NAMED.get(name, "pass")
    code = f"import time, numpy; t = {clock}; {IMPORTS[name]}; a = {clock} - t; {named}"
    yield {}
    while True:
        command = [sys.executable, "-c", f"{code}; print(a, {clock} - t)"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        import_s, named_s = map(float, done.stdout.split())
        yield {"import_ms": import_s * 1e3, "named_ms": named_s * 1e3}


CASES = (
    Case(
        "first_batch",
        "First batch of a fresh process, first batch of the second epoch, close",
        "pipeline",
        first_batch,
        (
            Metric("first_ms", "ms", False),
            Metric("second_epoch_ms", "ms", False),
            Metric("close_ms", "ms", False),
        ),
        "splitpipe",
        ("splitpipe",),
        ("splitpipe-zmq", "splitpipe-spawn", *PEERS),
        fresh=True,
    ),
    Case(
        "early_close",
        "Close in the middle of an epoch",
        "pipeline",
        early_close,
        (Metric("close_ms", "ms", False),),
        "splitpipe",
        ("splitpipe",),
        ("splitpipe-zmq", *PEERS),
        fresh=True,
    ),
    Case(
        "import",
        "Import, beyond numpy",
        "pipeline",
        import_time,
        (Metric("import_ms", "ms", False), Metric("named_ms", "ms", False)),
        "splitpipe",
        ("splitpipe",),
        ("spdl", "torch", "splitdataloader", "grain", "torchdata", "zmq", "joblib"),
    ),
)
