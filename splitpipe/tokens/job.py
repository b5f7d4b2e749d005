"""Text of a dataset -> a dataset of tokens.

Responsible for: `tokenize`: what is tokenized, by whom, and when it counts.

Rules:
- what cannot work (a dtype that is too small, a column that is not there) is refused before
  anything is written;
- the result is the same for any number of workers and any size of blocks: workers tokenize blocks
  of documents, one process packs them in order;
- the result is the same for any number of runs that ended early: each goes on from the last commit
  of the one before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any, Unpack, cast

from splitpipe.dataset import open_dataset
from splitpipe.errors import FormatError
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline
from splitpipe.tokens.blocks import EncodeBlock
from splitpipe.tokens.encoder import Encoder, make_encoder
from splitpipe.tokens.output import DatasetSink, WritingOptions
from splitpipe.tokens.packer import Counts, Packer, Sink
from splitpipe.tokens.packing import LossLike, Packing, check_count, make_packing
from splitpipe.tokens.texts import Reader, TextLike, make_reader

__all__ = ["Job", "TokenReport", "TokenizeOptions", "packing_of", "prepare", "tokenize"]

BLOCK = 256
_ON_ERROR = ("raise", "skip")


class TokenizeOptions(WritingOptions, total=False):
    """What `tokenize` may be told beyond the usual.

    Attributes:
        bos: the token before every document; none unless said.
        dtype: an integer type that holds the vocabulary; without one, the smaller of ``uint16``
            and ``uint32`` that does (``uint32`` where the vocabulary is not known).
        vocabulary: one more than the largest id, for a function, which cannot be asked.
        batched: the function takes a list of texts and returns as many sequences of ids.
        remainder: what becomes of tokens at the end that fill no sample: ``"drop"`` (the usual;
            they are counted), ``"keep"`` a shorter sample, or ``"pad"`` it.
        pad: the token to pad with, instead of ``eos``.
        loss: part types that count for the loss: a name, several, or a mapping from every type
            there is to whether it counts. Adds ``loss_mask``, one where a token counts. Plain
            text is of type ``"text"``. An end counts if the last part of its document does.
        arrays: of ``"document"`` (the row of the source that a token comes from; -1 for padding),
            ``"position"`` (its place in the document) and ``"local_position"`` (its place in that
            part of the document that lies in the sample).
        on_error: ``"raise"`` (the usual) ends the run at a record that cannot be tokenized;
            ``"skip"`` leaves it out, and counts and reports it.
        block: documents that are tokenized at a time; bounds memory, changes nothing else.
        progress: called with (documents done, documents in all or ``None``).

    And of writing, see `WritingOptions`: ``bins``, ``compression``, ``append``, ``overwrite``.
    """

    bos: int | str | None
    pad: int | str | None
    dtype: Any
    remainder: str
    loss: LossLike | None
    arrays: Collection[str]
    vocabulary: int | None
    batched: bool
    on_error: str
    block: int
    progress: Callable[[int, int | None], None] | None


@dataclass(frozen=True, slots=True)
class TokenReport:
    """What `tokenize` did.

    Attributes:
        path: where the samples are.
        documents: how many records were tokenized.
        skipped: how many records could not be tokenized and were left out.
        empty: how many of them gave no token of their own.
        tokens: of all documents, ends and begins among them.
        samples: that were written.
        dropped: tokens at the end that filled no sample and were left out.
        padding: tokens that were added to fill the last sample.
        parts: tokens of each part type (plain texts are of type ``text``), begins and ends not
            among them.
        faults: what was wrong with the first ones that were skipped.
        dtype: of the tokens.
        resumed_at: how many records an earlier run had done.
    """

    path: str
    documents: int
    skipped: int
    empty: int
    tokens: int
    samples: int
    dropped: int
    padding: int
    parts: Mapping[str, int]
    faults: Sequence[str]
    dtype: str
    resumed_at: int = 0

    def to_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def tokenize(
    source: Any,
    path: str | os.PathLike[str],
    tokenizer: Any,
    *,
    length: int | None,
    eos: int | str | None,
    text: TextLike = None,
    workers: int = 0,
    **options: Unpack[TokenizeOptions],
) -> TokenReport:
    """Tokenize the text of a dataset and pack it into samples of one length.

    Documents follow each other in the order of the source; a sample is cut wherever `length`
    tokens are full. Workers change how long it takes, never what is written. A run that ended
    early, whatever ended it, is gone on with by the same call.

    Args:
        source: a dataset or the path of one (in any format that is known), a Sequence of texts or
            records, a function that returns an iterable of them, or a Pipeline.
        path: of the dataset of samples: ``tokens``, and what ``loss`` and ``arrays`` add.
        tokenizer: a function from a text to its ids, a tokenizer of ``tokenizers``,
            ``transformers`` or ``tiktoken``, or the path of a ``tokenizer.json``.
        length: tokens of a sample; ``None`` for one sample of its own length a document.
        eos: the token after every document, as an id or as it is written; ``None`` for none.
        text: which column, or member of a record, is the text (default: the record itself, or its
            only column, or ``"text"``), or a function from a record to text or typed parts.
        workers: processes that tokenize; 0 is this one.
        **options: see `TokenizeOptions`.

    Raises:
        FormatError: this cannot be done, or a record has no text, or its tokens are no ids that
            fit; the message names it. What is committed is kept, to go on from.
        StorageError: there is something at `path` already, or it cannot be written.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> path = os.path.join(tempfile.mkdtemp(), "tokens")
        >>> report = sp.tokenize(["abc", "de"], path, str.encode, length=3, eos=0, vocabulary=256)
        >>> report.tokens, report.samples, report.dropped, sp.open_dataset(path)[1]
        (7, 2, 1, {'tokens': array([  0, 100, 101], dtype=uint16)})
    """
    writing = _writing(options)
    with _opened(source) as records:
        packed = packing_of(tokenizer, length=length, eos=eos, options=options)
        how = (options.get("block"), options.get("on_error", "raise"))
        job = prepare(records, *packed, text=text, workers=workers, block=how[0], on_error=how[1])
        with DatasetSink(path, job.packing.schema(job.total), job.about, writing) as sink:
            return _written(job, sink, options.get("progress"))


def _written(
    job: Job, sink: DatasetSink, progress: Callable[[int, int | None], None] | None
) -> TokenReport:
    """Do what is left to do, and tell of it."""
    if sink.finished is not None:
        # An earlier run was ended between its last commit and telling of it.
        sink.finish(sink.finished)
        return TokenReport(path=sink.path, **sink.finished)
    start = sink.earlier.documents if sink.earlier is not None else 0
    counts = job.run(sink, progress, into=sink)
    told = asdict(counts)
    told["documents"] -= counts.skipped
    report = TokenReport(path=sink.path, dtype=job.packing.dtype, resumed_at=start, **told)
    sink.commit(counts, report.to_json())
    return report


def _writing(options: TokenizeOptions) -> WritingOptions:
    """The options that are the writer's.

    Raises:
        TypeError: there is one that nobody knows.
    """
    unknown = options.keys() - TokenizeOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"tokenize() has no option {min(unknown)!r}")
    known = WritingOptions.__annotations__
    given = {name: value for name, value in options.items() if name in known}
    return cast("WritingOptions", given)


@contextmanager
def _opened(source: Any) -> Iterator[Any]:
    if isinstance(source, str | os.PathLike):
        with open_dataset(source) as dataset:
            yield dataset
    else:
        yield source


@dataclass(frozen=True, slots=True)
class Job:
    """What `tokenize` is about to do, checked.

    Attributes:
        blocks: gives the blocks of tokens from a document on.
        packing: what samples look like.
        total: how many documents there are, if that is known.
        about: what the dataset keeps of all this, as JSON.
    """

    blocks: Callable[[int], Pipeline]
    packing: Packing
    total: int | None
    about: Mapping[str, Any]

    def run(
        self,
        sink: Sink,
        progress: Callable[[int, int | None], None] | None = None,
        *,
        into: DatasetSink | None = None,
    ) -> Counts:
        """Give all samples to `sink`, in order.

        Args:
            sink: takes them.
            progress: see `TokenizeOptions`.
            into: the same sink, if it is one that keeps how far it is.
        """
        dtypes = self.packing.dtypes(self.total)
        earlier, last = (None, None) if into is None else (into.earlier, into.last)
        packer = Packer(self.packing, sink, dtypes, earlier=earlier, last=last)
        loader: Loader = self.blocks(packer.counts.documents).loader()
        with loader:
            for encoded in loader:
                packer.add(encoded)
                del encoded  # its memory is wanted for the next one
                if into is not None:
                    into.save(packer)
                if progress is not None:
                    progress(packer.counts.documents, self.total)
        counts = packer.finish()
        if self.total is not None and counts.documents != self.total:
            raise AssertionError(f"{counts.documents} documents came, not {self.total}")
        return counts


def packing_of(
    tokenizer: Any, *, length: int | None, eos: int | str | None, options: TokenizeOptions
) -> tuple[Encoder, Packing]:
    """The encoder and the packing that are asked for.

    Raises:
        FormatError: they do not fit each other.
    """
    encoder = make_encoder(
        tokenizer,
        vocabulary=options.get("vocabulary"),
        batched=options.get("batched", False),
    )
    specials = {"eos": eos, "bos": options.get("bos"), "pad": options.get("pad")}
    packing = make_packing(
        length=length,
        specials={what: encoder.special(what, given) for what, given in specials.items()},
        vocabulary=encoder.vocabulary,
        dtype=options.get("dtype"),
        remainder=options.get("remainder", "drop"),
        loss=options.get("loss"),
        arrays=options.get("arrays", ()),
    )
    return encoder, packing


def prepare(
    source: Any,
    encoder: Encoder,
    packing: Packing,
    *,
    text: TextLike = None,
    workers: int = 0,
    block: int | None = None,
    on_error: str = "raise",
) -> Job:
    """What `tokenize` would do; reads no record and writes nothing.

    Raises:
        FormatError: it cannot be done.
        GraphError: the source cannot be used, or workers are no number.

    Example:
        >>> encoder, packing = packing_of(str.encode, length=8, eos=None, options={})
        >>> job = prepare(["a", "bc"], encoder, packing)
        >>> job.packing.schema(), job.total
        (Schema({'tokens': Field('ndarray', 'uint32', (8,))}), 2)
    """
    block = BLOCK if block is None else check_count("block", block, least=1)
    workers = check_count("workers", workers, least=0)
    if on_error not in _ON_ERROR:
        raise FormatError(f"on_error must be one of {', '.join(_ON_ERROR)}, not {on_error!r}")
    stream, reader, total = _source(source, text)
    skips = on_error == "skip"
    encode = EncodeBlock(reader, encoder, packing, block, alone=workers <= 1, skips=skips)
    about = {
        "tokenizer": {
            "name": encoder.name,
            "sha256": encoder.digest,
            "vocabulary": encoder.vocabulary,
        },
        "packing": packing.to_json(),
        "source": _anonymous(reader.describe() if stream is None else repr(stream)),
        "text": getattr(text, "__qualname__", type(text).__qualname__) if callable(text) else text,
    }
    return Job(partial(_pipeline, stream, encode, total, workers), packing, total, about)


def _anonymous(text: str) -> str:
    """A description without addresses of objects, which are others in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _source(source: Any, text: TextLike) -> tuple[Pipeline | None, Reader, int | None]:
    """The stream of records or the reader that knows each by its number, and how many there are."""
    if isinstance(source, Pipeline):
        return source, Reader(None, None, text), None
    if isinstance(source, Sized) and (hasattr(source, "__getitem__") or hasattr(source, "read")):
        if isinstance(source, bytes | bytearray | memoryview | Mapping):
            raise FormatError(f"a {type(source).__name__} is no sequence of texts")
        return None, make_reader(source, text), len(source)
    return Pipeline(source), Reader(None, None, text), None


def _pipeline(
    stream: Pipeline | None, encode: EncodeBlock, total: int | None, workers: int, start: int
) -> Pipeline:
    if stream is not None:
        return stream.through(_blocks, encode.size, start).map(
            encode.given, workers=workers, name="tokenize"
        )
    assert total is not None
    blocks = _Blocks(total, encode.size, start)
    return Pipeline(blocks).map(encode.at, workers=workers, name="tokenize")


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The first record of every block, as the source of a pipeline."""

    total: int
    size: int
    start: int = 0

    def __len__(self) -> int:
        return (self.total - self.start + self.size - 1) // self.size

    def __getitem__(self, block: int) -> int:
        return self.start + block * self.size

    def __repr__(self) -> str:
        return f"the blocks of {self.size} records"


def _blocks(items: Iterable[Any], size: int, start: int = 0) -> Iterator[tuple[int, list[Any]]]:
    """Number the records of a stream from `start` on, many at a time."""
    source = iter(items)
    first = sum(1 for _ in islice(source, start))
    if first < start:
        raise FormatError(
            f"the stream ends after {first} records, and an earlier run had more than {start}: say "
            "overwrite to begin anew"
        )
    while values := list(islice(source, size)):
        yield first, values
        first += len(values)
