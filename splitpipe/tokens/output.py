"""Where samples go: a dataset, and beside it what its tokens are.

Responsible for: `DatasetSink`, one writing session from the first sample to the commit, and
`token_info`, which tells what a dataset of tokens was made of.

Rules:
- what is committed is described before: a run that ends early leaves nothing that counts, or
  samples that another run of the same goes on from;
- the schema (names, dtypes, lengths) is the dataset's own: reading needs nothing of this module;
- what else is to be known of the tokens lies in ``tokens.json``, which names the dataset it is
  about: it is not taken for a description of another one that was written over it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Self, TypedDict

import numpy.typing as npt

from splitpipe.dataset import open_dataset
from splitpipe.errors import FormatError, StorageError
from splitpipe.schema import Schema
from splitpipe.storage import files
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.snapshot import read_manifest
from splitpipe.storage.writer import DatasetWriter
from splitpipe.tokens.packer import Counts, Packer

__all__ = ["DatasetSink", "State", "WritingOptions", "token_info"]

NAME: Final = "tokens.json"
# Samples are committed whenever they are so many bytes.
COMMIT_NBYTES: Final = 64 << 20
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

    Attributes:
        earlier: what an earlier run of the same had done, where this one goes on from it.
        last: the tokens of the last sample of that run.

    Raises:
        FormatError: what is there is of another tokenizer or packing, or an unfinished run of
            something else.
        StorageError: what is there must not be written into.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: Schema,
        about: Mapping[str, Any],
        options: WritingOptions,
    ) -> None:
        self.path = files.local(path)
        self._names = tuple(schema)
        self._about = dict(about)
        self._append = options.get("append", False)
        self._overwrite = options.get("overwrite", False)
        self._there = self._look()
        goes_on = self._there.state is not None
        given = WritingOptions(**{**options, "append": self._append or goes_on})
        self._writer = DatasetWriter(self.path, schema, **given)
        try:
            self._there = there = self._look()  # nobody else writes from here on
            if (there.state is not None) != goes_on:
                raise FormatError(f"another process wrote {self.path} meanwhile: try again")
        except BaseException:
            self._writer.abort()
            raise
        self._pending_nbytes = 0
        self._note_before = _raw(self.path)
        self._replaced = self._to_be_replaced() if self._overwrite else None
        # The last state that is committed.
        self._began_at = self._writer.generation
        self._state = there.state or State(self._began_at, {})
        self.earlier = None if there.state is None else Counts(**there.state.counts)
        self.last = self._last_tokens() if self.earlier is not None else None

    @property
    def _committed(self) -> bool:
        """Whether samples of this run, or of an earlier one that it goes on from, count."""
        return self.earlier is not None or self._writer.generation != self._began_at

    # -- what is there -------------------------------------------------------------------------

    def _look(self) -> _There:
        """What an earlier call left that this one may go on from, or add to."""
        if self._overwrite or not files.is_there(os.path.join(self.path, MANIFEST_NAME)):
            return _There()
        manifest = read_manifest(self.path)
        try:
            document = _document(self.path, manifest.dataset.hex())
        except FormatError:
            if self._append and manifest.rows:
                raise
            return _There()  # a run that was killed, or something that is not to be written into
        there = _There(document["runs"], _state_of(document, manifest.generation, self.path))
        if there.state is not None:
            self._check_same(document["unfinished"])
        elif self._append:
            for run in there.runs:
                self._check_like(run)
        return there

    def _check_like(self, run: Mapping[str, Any]) -> None:
        for what in ("tokenizer", "packing"):
            before, now = run.get(what), self._about[what]
            if before != now:
                raise FormatError(
                    f"{self.path} holds samples of another {what}: {before}, not {now}; "
                    "write these into a dataset of their own"
                )

    def _check_same(self, unfinished: Mapping[str, Any]) -> None:
        for what, now in self._about.items():
            before = unfinished.get(what)
            if before != now:
                raise FormatError(
                    f"{self.path} holds samples of a run that was not finished, of another "
                    f"{what}: {before}, not {now}. Call it again as it was to finish it, choose "
                    "another directory, or say overwrite"
                )

    def _to_be_replaced(self) -> dict[str, Any] | None:
        """What is told of the dataset that is there until the first commit."""
        try:
            return _document(self.path, read_manifest(self.path).dataset.hex())
        except FormatError:
            return None

    def _last_tokens(self) -> npt.NDArray[Any] | None:
        with open_dataset(self.path) as dataset:
            last: npt.NDArray[Any] = dataset[-1]["tokens"]
            return last

    @property
    def finished(self) -> Mapping[str, Any] | None:
        """The report of an earlier run that did everything but telling of it."""
        return self._state.report

    # -- writing -------------------------------------------------------------------------------

    def write(self, samples: Mapping[str, Sequence[npt.NDArray[Any]]]) -> None:
        """See `splitpipe.tokens.packer.Sink.write`."""
        names = self._names
        columns = [samples[name] for name in names]
        self._writer.write_many(
            dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)
        )
        self._pending_nbytes += sum(array.nbytes for column in columns for array in column)

    def save(self, packer: Packer) -> None:
        """Make what was written durable, if it is enough, so that another run can go on."""
        if self._pending_nbytes >= COMMIT_NBYTES:
            self._keep(packer.checkpoint())

    def _keep(self, counts: Counts, report: Mapping[str, Any] | None = None) -> None:
        """Commit. What it will be is told before, so that there is no commit without a word."""
        generation = self._writer.generation
        coming = State(generation + 1, asdict(counts), report)
        states = [state.to_json() for state in (self._state, coming)]
        self._tell(self._there.runs, {**self._about, "states": states})
        self._writer.commit()
        self._pending_nbytes = 0
        if self._writer.generation != generation:
            self._state = coming

    def commit(self, counts: Counts, report: Mapping[str, Any]) -> None:
        """Make it all count, and describe it."""
        told = {name: value for name, value in report.items() if name != "path"}
        self._keep(counts, told)
        self.finish(told)

    def finish(self, report: Mapping[str, Any]) -> None:
        """Describe what is committed, and let go of it."""
        self._tell([*self._there.runs, {**self._about, "report": dict(report)}], None)
        files.sync_directory(self.path)
        self._writer.close()

    def _tell(self, runs: Sequence[Any], unfinished: Mapping[str, Any] | None) -> None:
        document: dict[str, Any] = {"dataset": self._writer.dataset, "runs": list(runs)}
        if unfinished is not None:
            document["unfinished"] = unfinished
            if not self._committed and self._replaced is not None:
                document["replaced"] = self._replaced
        text = json.dumps(document, indent=1, ensure_ascii=False)
        files.replace(os.path.join(self.path, NAME), text.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is not None and not self._committed:
                self._take_back()
        finally:
            self._writer.abort()  # which does nothing after a commit

    def _take_back(self) -> None:
        """Leave the description as it was."""
        name = os.path.join(self.path, NAME)
        if self._note_before is None:
            files.unlink(name)
        elif _raw(self.path) != self._note_before:
            files.replace(name, self._note_before)


@dataclass(frozen=True, slots=True)
class State:
    """How far a run was at a commit.

    Attributes:
        generation: of the commit.
        counts: `Packer.checkpoint`, as JSON; empty before anything was done.
        report: of the run, if it was its last commit.
    """

    generation: int
    counts: Mapping[str, Any]
    report: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """It as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _There:
    """What lies in a directory: earlier runs, and how far an unfinished one was."""

    runs: Sequence[Any] = ()
    state: State | None = None


def _state_of(document: Mapping[str, Any], generation: int, path: str) -> State | None:
    """How far an unfinished run was; ``None`` if there is none, or nothing of it is committed."""
    unfinished = document.get("unfinished")
    if unfinished is None:
        return None
    try:
        states = [State(**state) for state in unfinished["states"]]
        (state,) = (state for state in states if state.generation == generation)
        return state if state.counts else None
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path} holds samples of a run that was not finished, and was changed since: choose "
            "another directory, or say overwrite"
        ) from error


def _raw(directory: str) -> bytes | None:
    name = os.path.join(directory, NAME)
    return files.read_whole(name, limit=_LARGEST) if files.is_there(name) else None


def _document(directory: str, dataset: str) -> dict[str, Any]:
    """What lies beside a dataset and is about it.

    Raises:
        FormatError: there is nothing, or it is about another one.
    """
    name = os.path.join(directory, NAME)
    try:
        document = json.loads(_raw(directory) or b"")
        if document["dataset"] != dataset and "replaced" in document:
            document = document["replaced"]
        found, runs = document["dataset"], list(document["runs"])
    except (StorageError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{name} does not tell what {directory} is made of: {error}") from error
    if found != dataset:
        raise FormatError(f"{name} is about a dataset that was there before: {directory} is new")
    return {**document, "runs": runs}


def token_info(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What a dataset of tokens was made of: one entry for every `tokenize` into it.

    Each holds ``tokenizer`` (name, SHA-256, size of the vocabulary), ``packing`` (length, ids of
    end, begin and padding, dtype, arrays), ``source``, ``text`` and ``report``, which is ``None``
    for a run that is not finished.

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
    directory = files.local(path)
    document = _document(directory, read_manifest(directory).dataset.hex())
    runs: list[dict[str, Any]] = document["runs"]
    unfinished = document.get("unfinished")
    if unfinished is not None:
        about = {name: value for name, value in unfinished.items() if name != "states"}
        runs.append({**about, "report": None})
    return runs
