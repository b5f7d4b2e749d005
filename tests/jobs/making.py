"""What the tests of jobs share: small sources, stages, and files compared byte by byte."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import splitpipe as sp

COUNT = 200


def source(path: Path, count: int = COUNT) -> Path:
    """A dataset of a number and a text."""
    with sp.DatasetWriter(path, {"n": "int64", "text": "str"}, bins=3) as writer:
        writer.write_many({"n": n, "text": f"text {n} " * (n % 5)} for n in range(count))
    return path


def files(path: Path) -> dict[str, bytes]:
    """All files of a dataset, byte for byte."""
    return {
        str(found.relative_to(path)): found.read_bytes()
        for found in sorted(path.rglob("*"))
        if found.is_file()
    }


def assert_same_files(one: Path, other: Path) -> None:
    mine, theirs = files(one), files(other)
    assert list(mine) == list(theirs)
    for name, data in mine.items():
        assert data == theirs[name], name


# -- stages


def counted(record: dict[str, Any]) -> dict[str, Any]:
    return {"n": record["n"], "length": len(record["text"]), "text": record["text"].upper()}


def not_third(record: dict[str, Any]) -> bool:
    return bool(record["n"] % 3)


def halves(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in range(record["n"] % 4):
        yield {"n": record["n"], "part": part}


def noisy(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {"n": record["n"], "noise": float(rng.random())}


def square(record: dict[str, Any]) -> int:
    return int(record["n"]) ** 2


def fails_at_seventh(record: dict[str, Any]) -> dict[str, Any]:
    if record["n"] % 7 == 3:
        raise KeyError(f"no use for {record['n']}")
    return record


def doubled(batch: dict[str, Any]) -> dict[str, Any]:
    return {"n": batch["n"] * 2}


def dies_once(flag: str, at: int, everybody: bool = False) -> Callable[[Any], Any]:
    """A stage that kills its process, or all of its group, at one record; once in a lifetime."""

    def stage(record: dict[str, Any]) -> dict[str, Any]:
        if record["n"] == at:
            try:
                os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return record
            if everybody:
                os.killpg(int(os.environ["JOB_GROUP"]), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    return stage


# -- jobs, by name


def plain(data: Path, out: Path, **options: Any) -> sp.Job:
    """Filtered, made several of, encoded."""
    pipe = sp.Pipeline(sp.open_dataset(data)).filter(not_third).map(counted)
    return sp.Job(pipe, out, **{"task": 30, "bins": 2, **options})


def many(data: Path, out: Path, **options: Any) -> sp.Job:
    """Several records of one, random numbers."""
    pipe = sp.Pipeline(sp.open_dataset(data), shuffle="global", seed=3).map(noisy).flat_map(twice)
    return sp.Job(pipe, out, **{"task": 30, "bins": 2, **options})


def twice(record: dict[str, Any], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for _ in range(record["n"] % 3):
        yield {**record, "more": int(rng.integers(100))}


def column(data: Path, out: Path, **options: Any) -> sp.Job:
    """A column of the source itself."""
    pipe = sp.Pipeline(sp.open_dataset(out)).map(square)
    return sp.Job(pipe, out, column="square", **{"task": 30, **options})


JOBS: dict[str, Callable[..., sp.Job]] = {"plain": plain, "many": many, "column": column}


def place(kind: str, folder: Path, name: str, count: int = COUNT) -> tuple[Path, Path]:
    """The source and the output of a job; a column has a copy of the source for both."""
    data = folder / "source"
    if not data.exists():
        source(data, count)
    out = folder / name
    if kind == "column":
        for file, content in files(data).items():
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_bytes(content)
    return data, out
