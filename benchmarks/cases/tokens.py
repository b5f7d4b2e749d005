"""Text to samples of one length: what packing costs beyond the tokenizer itself.

Rules: the tokenizer is trained on the spot, on the sources of Python's own library, and the texts
are the same sources; every system starts from texts where it likes them best (a dataset, JSON
Lines, a list) and ends when its samples are kept. Before the first figure all samples are compared,
token for token, with what the tokenizer gives for each text, an end between them.
"""

from __future__ import annotations

import shutil
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.base import Case, Context, Metric, Metrics, Unsupported, WrongResult

__all__ = ["CASES"]

LENGTH = 2048
VOCABULARY = 8000
END = 0
CHARACTERS = 3000


class TokenSystem(Protocol):
    """Tokenizes and packs."""

    def prepare(self, directory: Path, texts: Sequence[str]) -> Any:
        """Put the texts where `tokenize` takes them from."""
        ...

    def tokenize(self, source: Any, directory: Path, tokenizer: Any, workers: int) -> int:
        """Write samples of `LENGTH` tokens into an empty directory; tokens in all, ends counted."""
        ...

    def samples(self, directory: Path) -> Iterable[npt.NDArray[Any]] | None:
        """What was written; None for a system that writes nothing."""
        ...


def _sources(characters: int) -> list[str]:
    """Python's own library in pieces of some 3000 characters, as often as is needed."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [file.read_text("utf-8", "replace") for file in files]
    pieces = [t[at : at + CHARACTERS] for t in texts for at in range(0, len(t), CHARACTERS)]
    have = sum(map(len, pieces))
    pieces *= -(-characters // have)
    mean = sum(map(len, pieces)) / len(pieces)
    return pieces[: max(1, int(characters / mean))]


def _trained(texts: Sequence[str]) -> Any:
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise Unsupported("the package tokenizers is not installed") from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<end>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts[:1000], trainer)
    return tokenizer


def _bytes(texts: Sequence[str]) -> Any:
    del texts
    return str.encode


def ids_of(tokenizer: Any, texts: Sequence[str]) -> list[Any]:
    """The ids of each text, as the tokenizer gives them."""
    if callable(tokenizer):
        return [np.frombuffer(tokenizer(text), np.uint8) for text in texts]
    found = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in found]


def _check(
    system: TokenSystem, directory: Path, tokenizer: Any, texts: Sequence[str], total: int
) -> None:
    ends = [[END]] * len(texts)
    pairs = zip(ids_of(tokenizer, texts), ends, strict=True)
    stream = np.concatenate([part for pair in pairs for part in pair])
    if total != len(stream):
        raise WrongResult(f"{total} tokens were made, the texts have {len(stream)}")
    samples = system.samples(directory)
    if samples is None:
        return
    at = 0
    for sample in samples:
        if not np.array_equal(sample, stream[at : at + LENGTH]):
            raise WrongResult(f"the sample that begins with token {at} is another")
        at += LENGTH
    if len(stream) - at not in range(LENGTH):
        raise WrongResult(f"{at} tokens lie in samples, of {len(stream)}")


def tokenize(
    system: TokenSystem, context: Context, make: Callable[[Sequence[str]], Any], characters: int
) -> Iterator[Metrics]:
    """From texts to samples that are kept."""
    texts = _sources(context.pick(full=characters, quick=characters // 4, tiny=100_000))
    tokenizer = make(texts)
    source = system.prepare(context.directory / "source", texts)
    target = context.directory / "samples"

    def one() -> tuple[int, float]:
        shutil.rmtree(target, ignore_errors=True)
        begin = time.perf_counter()
        total = system.tokenize(source, target, tokenizer, context.workers)
        return total, time.perf_counter() - begin

    total, _ = one()
    _check(system, target, tokenizer, texts, total)
    yield {"documents": len(texts), "tokens": total}
    while True:
        again, seconds = one()
        if again != total:
            raise WrongResult(f"{again} tokens were made, {total} before")
        yield {"tokens_s": total / seconds, "ns_token": seconds / total * 1e9}


METRICS = (Metric("tokens_s", "tokens/s"), Metric("ns_token", "ns/token", False))

CASES = (
    Case(
        "tokenize",
        "Tokenizing with a BPE of 8000 ids and packing into samples of 2048",
        "tokens",
        partial(tokenize, make=_trained, characters=24_000_000),
        METRICS,
        "tokenizer",
        ("tokenizer", "inline", "splitpipe"),
        ("tokenizer-fast", "splitpipe@2", "data_forager"),
        rounds=5,
    ),
    Case(
        "tokenize_bytes",
        "The same with a tokenizer that costs nothing: the bytes of the text",
        "tokens",
        partial(tokenize, make=_bytes, characters=200_000_000),
        METRICS,
        "inline",
        ("inline", "splitpipe"),
        ("splitpipe@2", "data_forager"),
        rounds=5,
    ),
)
