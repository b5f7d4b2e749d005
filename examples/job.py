"""A preprocessing job: a pipeline into a dataset, and then into one more column of it.

Cleans text records in two worker processes, filters some, skips those that are broken, is stopped
in the middle, and goes on where it was. However often a job is stopped, and however many workers
there are, the files are the same, byte for byte. ``splitpipe run`` does the same from the command
line, with a bar: see docs/jobs.md.

Run it: ``python examples/job.py``
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import splitpipe as sp

RECORDS = 2_000


def cleaned(record: str) -> dict[str, Any]:
    """The work. Raises where a record is broken."""
    number, _, text = record.partition(":")
    return {"number": int(number), "text": text.strip().lower()}


def worth_it(record: dict[str, Any]) -> bool:
    """Leave out every fifth record."""
    return bool(record["number"] % 5)


def letters(record: dict[str, Any]) -> int:
    """How long the text is."""
    return len(record["text"])


def source(path: Path) -> None:
    """Write something to work on; ten records are broken."""
    with sp.DatasetWriter(path, "str", bins=4) as writer:
        for n in range(RECORDS):
            writer.write(f"{n}: Record {n} " if n % 200 != 50 else "?: nobody knows")


def clean(home: Path, name: str) -> sp.Job:
    """The job: where it reads, what it does, where it writes."""
    pipe = sp.Pipeline(sp.open_dataset(home / "source")).map(cleaned).filter(worth_it)
    return sp.Job(pipe, home / name, task=200, bins=4, on_error="skip")


def main() -> None:
    """Run it in two goes, and in one; compare; add a column."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        source(home / "source")

        summary = clean(home, "clean").run(workers=2, limit=800)
        print(f"stopped: {summary.done} of {summary.records} records are done")
        summary = clean(home, "clean").run(workers=2)
        total = summary.total
        print(
            f"went on at {summary.resumed_at}: {total.read} read = {total.used} used + "
            f"{total.filtered} filtered + {total.skipped} skipped"
        )
        print("the first that was skipped:", summary.faults[0].partition(" in stage ")[2])

        clean(home, "again").run(workers=1)
        one, other = (
            {file.name: file.read_bytes() for file in (home / name).iterdir()}
            for name in ("clean", "again")
        )
        print("the same files as one run by another number of workers:", one == other)

        pipe = sp.Pipeline(sp.open_dataset(home / "clean")).map(letters)
        sp.Job(pipe, home / "clean", column="letters", schema="int32").run(workers=0)
        first = sp.open_dataset(home / "clean")[0]
        print(f"a column: {first['text']!r} has {first['letters']} letters")


# Worker processes import this file again: without this line, each would start the job as well.
if __name__ == "__main__":
    main()
