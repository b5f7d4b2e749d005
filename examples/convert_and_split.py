"""From files of lines to datasets for training: convert with proof, look, split.

A folder of JSON lines becomes a dataset of typed columns in bins, compressed with a dictionary that
is trained from them. The conversion is stopped in the middle and goes on where it was; at its end
every value is compared with its source. Then the copy is described, and split by author, so that
nobody's texts are in two parts.

Run it: ``python examples/convert_and_split.py``
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable

import splitpipe as sp

RECORDS = 20_000
COLUMNS = {"author": "str", "text": "str", "likes": "int64"}


def write_lines(folder: str) -> None:
    """Posts of many authors, in a few files."""
    os.makedirs(folder)
    for part in range(4):
        with open(os.path.join(folder, f"part{part}.jsonl"), "w", encoding="utf-8") as file:
            for n in range(part, RECORDS, 4):
                text = f"This is what author {n % 97} has to say about subject {n * n % 8191}. "
                row = {"author": f"author {n % 97}", "text": text * (1 + n % 3), "likes": n % 11}
                file.write(json.dumps(row) + "\n")


def stopping_at(records: int) -> Callable[[str, int, int], None]:
    """Progress that ends a conversion, as Ctrl-C would."""

    def progress(what: str, done: int, total: int) -> None:
        if what == "copy" and done >= records:
            raise KeyboardInterrupt

    return progress


def main() -> None:
    """Convert, be interrupted, go on, look, split."""
    with tempfile.TemporaryDirectory() as folder:
        lines, copy = os.path.join(folder, "lines"), os.path.join(folder, "posts")
        write_lines(lines)
        compression = {"text": sp.Zstd(level=9, dictionary=True)}
        with sp.open_dataset(lines, schema=COLUMNS) as source:
            try:
                sp.convert(source, copy, compression=compression, progress=stopping_at(8_000))
            except KeyboardInterrupt:
                print("stopped in the middle")
            report = sp.convert(source, copy, compression=compression)
        print(f"resumed: {report.resumed_at >= 8_000}, proven equal: {report.compared} records")

        with sp.open_dataset(copy) as posts:
            whole = sum(entry.stat().st_size for entry in os.scandir(lines) if entry.is_file())
            print(f"its values take {posts.nbytes / whole:.0%} of the bytes of the lines")
            for column in sp.summarise(posts).columns:
                print(f"{column.name}: {column.values} values, {column.nbytes.mean:.0f} bytes each")
            parts = posts.split({"train": 0.8, "test": 0.2}, by="author", seed=0)
            authors = {name: {post["author"] for post in part} for name, part in parts.items()}
            for name, part in parts.items():
                sp.convert(part, os.path.join(folder, name), workers=0)
                print(f"{name}: {len(part)} records of {len(authors[name])} authors")
            print(f"authors in both: {len(authors['train'] & authors['test'])}")


if __name__ == "__main__":
    main()
