"""Tokenizing and packing: splitpipe, a tokenizer that is called and nothing else, and a peer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import splitpipe as sp
from benchmarks.base import Unsupported
from benchmarks.cases.tokens import END, LENGTH, VOCABULARY, ids_of

__all__ = [
    "DataForagerTokens",
    "FastTokenizerAlone",
    "InlineTokens",
    "SplitpipeTokens",
    "TokenizerAlone",
]


class SplitpipeTokens:
    """From a dataset of str into a dataset; durable when it returns."""

    def prepare(self, directory: Path, texts: Sequence[str]) -> Any:
        """Write a dataset."""
        with sp.DatasetWriter(directory, "str") as writer:
            writer.write_many(texts)
        return directory

    def tokenize(self, source: Any, directory: Path, tokenizer: Any, workers: int) -> int:
        """`splitpipe.tokens.tokenize`."""
        from splitpipe.tokens import tokenize

        known = {"vocabulary": VOCABULARY} if callable(tokenizer) else {}
        report = tokenize(
            source, directory, tokenizer, length=LENGTH, eos=END, workers=workers, **known
        )
        return report.tokens

    def samples(self, directory: Path) -> Iterator[npt.NDArray[Any]]:
        """All samples."""
        with sp.open_dataset(directory) as dataset:
            for sample in dataset:
                yield sample["tokens"]


class InlineTokens(SplitpipeTokens):
    """The same without workers."""

    def tokenize(self, source: Any, directory: Path, tokenizer: Any, workers: int) -> int:
        """`splitpipe.tokens.tokenize` in this process."""
        if workers != 1:
            raise Unsupported("it has no workers")
        return super().tokenize(source, directory, tokenizer, 0)


class TokenizerAlone:
    """One call of ``encode_batch`` for all texts, whose result nobody looks at."""

    method = "encode_batch"

    def prepare(self, directory: Path, texts: Sequence[str]) -> Any:
        """They stay in memory."""
        del directory
        return list(texts)

    def tokenize(self, source: Any, directory: Path, tokenizer: Any, workers: int) -> int:
        """Call the tokenizer."""
        del directory
        if workers != 1:
            raise Unsupported("it has no workers")
        if callable(tokenizer):
            return sum(map(len, ids_of(tokenizer, source))) + len(source)
        found = getattr(tokenizer, self.method)(source, add_special_tokens=False)
        return sum(map(len, found)) + len(source)

    def samples(self, directory: Path) -> None:
        """There are none."""
        del directory


class FastTokenizerAlone(TokenizerAlone):
    """The same with ``encode_batch_fast``, which leaves out where in the text a token was."""

    method = "encode_batch_fast"


class DataForagerTokens:
    """`create_tokenize_and_index_jsonl_text_func`, from JSON Lines."""

    def prepare(self, directory: Path, texts: Sequence[str]) -> Any:
        """Write JSON Lines."""
        directory.mkdir(parents=True)
        path = directory / "texts.jsonl"
        with path.open("w") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        return path, len(texts)

    def tokenize(self, source: Any, directory: Path, tokenizer: Any, workers: int) -> int:
        """Tokenize text by text."""
        from data_forager.indexers.tokenization_indexer import (
            create_tokenize_and_index_jsonl_text_func,
        )

        if workers != 1:
            raise Unsupported("it tokenizes in one process")
        path, _ = source
        total = 0

        def encode(text: str) -> list[int]:
            nonlocal total
            if callable(tokenizer):
                ids = list(tokenizer(text))
            else:
                ids = tokenizer.encode(text, add_special_tokens=False).ids
            total += len(ids) + 1
            return ids

        create_tokenize_and_index_jsonl_text_func(
            tokenizer_func=encode,
            eos_idx=END,
            input_file_paths=[str(path)],
            output_base_path=str(directory),
            sample_size=LENGTH,
            token_dtype=np.uint16,
        )()
        return total

    def samples(self, directory: Path) -> Iterable[npt.NDArray[Any]]:
        """All samples."""
        from data_forager.datasets.tokens import TokensDataset

        # Its index does not say the dtype.
        dataset = TokensDataset.create_from_index_on_filesystem(
            str(directory), token_dtype=np.uint16
        )
        dataset.initialize()
        for number in range(len(dataset)):
            yield dataset[number]
