"""Where samples go: a dataset, and beside it what its tokens are.

Responsible for: `DatasetSink`, one writing session from the first sample to the commit, and
`token_info`, which tells what a dataset of tokens was made of.

Rules:
- a session that is left without `commit` leaves nothing that counts;
- the schema (names, dtypes, lengths) is the dataset's own: reading needs nothing of this module;
- what else is to be known of the tokens lies in ``tokens.json``, which names the dataset it is
  about: it is not taken for a description of another one that was written over it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypedDict

import numpy.typing as npt

from splitpipe.errors import FormatError, StorageError
from splitpipe.schema import Schema
from splitpipe.storage import files
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.snapshot import read_manifest
from splitpipe.storage.writer import DatasetWriter

__all__ = ["DatasetSink", "WritingOptions", "token_info"]

NAME: Final = "tokens.json"
_LARGEST = 64 << 20


class WritingOptions(TypedDict, total=False):
    """How the dataset is written.

    Attributes:
        bins: of a new dataset.
        compression: as `DatasetWriter` takes it: ``"zstd"``, or a mapping from array to it.
        append: add to the dataset that is there, which must be of the same tokenizer and packing.
        overwrite: replace the dataset that is there.
    """

    bins: int | None
    compression: Any
    append: bool
    overwrite: bool


class DatasetSink:
    """A `Sink` that is a dataset. To be used in a ``with`` block.

    Args:
        path: the dataset's directory.
        schema: of the samples.
        about: what they are made of, as JSON.
        options: how to write.

    Raises:
        FormatError: what is there is of another tokenizer or packing.
        StorageError: what is there must not be written into.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: Schema,
        about: Mapping[str, Any],
        options: WritingOptions,
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._names = tuple(schema)
        self._about = dict(about)
        self._append = options.get("append", False)
        self._runs = self._earlier()
        self._writer = DatasetWriter(self.path, schema, **options)
        try:
            self._runs = self._earlier()  # nobody else writes from here on
        except BaseException:
            self._writer.abort()
            raise

    def _earlier(self) -> list[dict[str, Any]]:
        """What went into the dataset before, if what follows may be added to it."""
        if not self._append or not os.path.exists(os.path.join(self.path, MANIFEST_NAME)):
            return []
        try:
            runs = token_info(self.path)
        except FormatError:
            if read_manifest(self.path).rows:
                raise
            return []  # a run that was killed
        for run in runs:
            for what in ("tokenizer", "packing"):
                before, now = run.get(what), self._about[what]
                if before != now:
                    raise FormatError(
                        f"{self.path} holds samples of another {what}: {before}, not {now}; "
                        "write these into a dataset of their own"
                    )
        return runs

    def write(self, samples: Mapping[str, Sequence[npt.NDArray[Any]]]) -> None:
        """See `splitpipe.tokens.packer.Sink.write`."""
        names = self._names
        columns = [samples[name] for name in names]
        self._writer.write_many(
            dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)
        )

    def commit(self, report: Mapping[str, Any]) -> None:
        """Make it count, and describe it."""
        self._writer.commit()
        run = {**self._about, "report": {k: v for k, v in report.items() if k != "path"}}
        document = {
            "dataset": read_manifest(self.path).dataset.hex(),
            "runs": [*self._runs, run],
        }
        text = json.dumps(document, indent=1, ensure_ascii=False)
        files.replace(os.path.join(self.path, NAME), text.encode())
        files.sync_directory(self.path)
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.abort()  # which does nothing after a commit


def token_info(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What a dataset of tokens was made of: one entry for every `tokenize` into it.

    Each holds ``tokenizer`` (name, SHA-256, size of the vocabulary), ``packing`` (length, ids of
    end, begin and padding, dtype, arrays), ``source`` and ``report``.

    Raises:
        FormatError: it is not a dataset that `tokenize` wrote.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> path = os.path.join(tempfile.mkdtemp(), "tokens")
        >>> report = sp.tokenize(["abc"], path, str.encode, length=2, eos=0, vocabulary=256)
        >>> (run,) = sp.token_info(path)
        >>> run["packing"]["length"], run["report"]["samples"]
        (2, 2)
    """
    directory = os.path.abspath(os.fspath(path))
    dataset = read_manifest(directory).dataset.hex()
    name = os.path.join(directory, NAME)
    try:
        document = json.loads(files.read_whole(name, limit=_LARGEST))
        found, runs = document["dataset"], list(document["runs"])
    except (StorageError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{name} does not tell what {directory} is made of: {error}") from error
    if found != dataset:
        raise FormatError(f"{name} is about a dataset that was there before: {directory} is new")
    return runs
