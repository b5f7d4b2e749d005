"""``splitpipe demo``: the main job, from files on disk to a model that learns, on real data.

Responsible for: writing the standard library's source files into bins, reading them back shuffled
through worker processes, training on the batches, and showing what happened. It uses the library
as any user would: nothing here reaches below the public names.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import splitpipe as sp
from splitpipe.cli.console import (
    StageStatistics,
    make_console,
    megabytes,
    metered,
    stage_table,
)
from splitpipe.cli.model import NextByteModel
from splitpipe.cli.text import decode, encode, pack, source_files
from splitpipe.errors import StorageError
from splitpipe.storage.snapshot import read_manifest

__all__ = ["demo"]

BINS = 64
EPOCHS = 2
LENGTH = 1024
BATCH = 64
QUICK_NBYTES = 4_000_000
SMOOTH = 20
"""Steps whose mean is shown as the loss; one step's loss is mostly the luck of its batch."""


@dataclass
class Training:
    """What a training run leaves for the report."""

    losses: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    waited_s: float = 0.0
    stages: tuple[StageStatistics, ...] = ()

    @property
    def first(self) -> float:
        """Mean loss of the first steps, in bits a byte."""
        return fmean(self.losses[:SMOOTH])

    @property
    def last(self) -> float:
        """Mean loss of the latest steps, in bits a byte."""
        return fmean(self.losses[-SMOOTH:])


def demo(
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Keep the dataset here; a temporary folder unless given."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode the files.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="A few megabytes of it only.")] = False,
) -> None:
    """Train a small model on this Python's own source files, through the whole of splitpipe."""
    console = make_console()
    with _home(directory) as home:
        dataset = _dataset(home, console, at_most_nbytes=QUICK_NBYTES if quick else None)
        pipe = (
            sp.Pipeline(dataset, shuffle="binwise", seed=0)
            .map(decode, workers=workers)
            .map(encode)
            .through(pack, length=LENGTH, workers=1)
            .batch(BATCH, drop_last=True)
        )
        model = NextByteModel()
        training = _train(pipe, model, console, total_nbytes=EPOCHS * dataset.nbytes)
        _report(console, training, model)
        _what_next(console, home if directory is not None else None)
    if training.last >= training.first:
        raise typer.Exit(1)


@contextmanager
def _home(directory: Path | None) -> Iterator[Path]:
    """Where the dataset lies: the folder asked for, or one that is gone afterwards."""
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="splitpipe-demo-") as name:
        yield Path(name) / "stdlib"


def _dataset(home: Path, console: Console, *, at_most_nbytes: int | None) -> sp.Dataset:
    """Write the source files into bins, or open what an earlier demo wrote there."""
    if home.exists() and any(home.iterdir()):
        read_manifest(str(home))  # refuses a folder of anything else, also of other formats
        dataset = sp.open_dataset(home)
        console.print(f"Found {len(dataset):,} records in {escape(str(home))}: reading these.")
        return dataset
    files = source_files(at_most_nbytes=at_most_nbytes)
    if not files:
        raise StorageError("this Python's standard library has no .py files to train on")
    started = time.perf_counter()
    nbytes = 0
    with sp.DatasetWriter(home, bins=BINS) as writer:
        for path in files:
            record = path.read_bytes()
            writer.write(record)
            nbytes += len(record)
    elapsed = time.perf_counter() - started
    console.print(
        f"Wrote {len(files):,} source files of Python's standard library ({megabytes(nbytes)}) "
        f"into {BINS} bins in {elapsed:.1f} s: {escape(str(home))}"
    )
    return sp.open_dataset(home)


def _train(
    pipe: sp.Pipeline, model: NextByteModel, console: Console, *, total_nbytes: int
) -> Training:
    """Two epochs of steps; beside the loss, measure how long the loop waited for its batches."""
    result = Training()
    started = time.perf_counter()
    with (
        pipe.loader(prefetch=4, epochs=EPOCHS) as loader,
        metered(console, total_nbytes=total_nbytes) as meter,
    ):
        asked = time.perf_counter()
        for batch in loader:
            result.waited_s += time.perf_counter() - asked
            result.losses.append(model.step(batch))
            note = f"epoch {loader.epoch + 1}  loss {result.last:.2f} bits a byte"
            meter.advance(batch.nbytes, note)
            asked = time.perf_counter()
        result.elapsed_s = time.perf_counter() - started
        result.stages = tuple(loader.stats())
    return result


def _report(console: Console, training: Training, model: NextByteModel) -> None:
    first, last, steps = training.first, training.last, len(training.losses)
    verdict = "it fell" if last < first else "it did NOT fall: something is wrong"
    console.print(f"\nLoss over {steps:,} steps: {first:.2f} -> {last:.2f} bits a byte; {verdict}.")
    text = model.write(160).decode("utf-8", "replace").strip().replace("\0", "")
    console.print("The model's own Python, from eight bytes of context:\n")
    console.print("\n".join(f"    {line}" for line in text.splitlines()), markup=False)
    console.print()
    console.print(stage_table(training.stages, elapsed_s=training.elapsed_s), soft_wrap=False)
    share = training.waited_s / training.elapsed_s
    console.print(
        f"The training loop ran {training.elapsed_s:.1f} s and waited "
        f"{training.waited_s:.1f} s of it ({share:.0%}) for its batches."
    )


def _what_next(console: Console, kept: Path | None) -> None:
    program = _program()
    if kept is None:
        console.print("\nThe dataset was in a temporary folder and is removed now. To keep it:")
        console.print(f"  {program} demo --dir stdlib", markup=False)
        kept = Path("stdlib")
    else:
        console.print(f"\nThe dataset stays in {escape(str(kept))}. Next:")
    for command in ("info", "head -n 3", "check"):
        console.print(f"  {program} {command} {shlex.quote(str(kept))}", markup=False)
    console.print("and the programs in examples/.")


def _program() -> str:
    """How this program was called, so that the commands shown can be copied as they are."""
    called = sys.argv[0]
    if Path(called).name != "splitpipe":
        return "python -m splitpipe"
    return "splitpipe" if shutil.which("splitpipe") == called else called
