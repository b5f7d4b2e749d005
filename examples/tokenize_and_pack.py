"""Tokenize conversations and pack them into samples of one length, to train on answers alone.

Conversations are stored as JSON; each is a list of turns. Three worker processes tokenize, this one
cuts the stream of all tokens into samples, and beside the tokens stand a mask (which tokens count
for the loss), the conversation that each token comes from, and its place in it. The training loop
reads shuffled batches and needs to be told nothing: names, types and lengths are the dataset's own.

The tokenizer is a dozen lines, so that this program needs nothing else; one of the packages
``tokenizers``, ``transformers`` or ``tiktoken``, or the path of a ``tokenizer.json``, takes its
place without another change.

Run it: ``python examples/tokenize_and_pack.py``
"""

from __future__ import annotations

import random
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import splitpipe as sp

TEXT = "a bin holds records an index finds them every batch is made by some worker"
WORDS = TEXT.split()
VOCABULARY = {word: number for number, word in enumerate(["<end>", "<unknown>", *WORDS])}
LENGTH = 64


def encode(text: str) -> list[int]:
    """Words to their numbers. Runs in the workers."""
    return [VOCABULARY.get(word, 1) for word in re.findall(r"\w+", text)]


def conversations(count: int) -> list[Any]:
    """Questions and answers in turns."""
    rng = random.Random(0)
    roles = ("user", "assistant")
    return [
        {
            "messages": [
                {
                    "role": roles[turn % 2],
                    "content": " ".join(rng.choices(WORDS, k=rng.randint(3, 40))),
                }
                for turn in range(2 * rng.randint(1, 4))
            ]
        }
        for _ in range(count)
    ]


def main() -> None:
    """Write conversations, tokenize and pack them, read them as a training loop does."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "chats"), Path(folder, "tokens")
        with sp.DatasetWriter(source, "json", bins=4) as writer:
            writer.write_many(conversations(2_000))

        report = sp.tokenize(
            source,
            target,
            encode,
            length=LENGTH,
            eos=VOCABULARY["<end>"],
            text="messages",
            workers=3,
            vocabulary=len(VOCABULARY),
            loss={"assistant": True, "user": False},
            arrays=("document", "local_position"),
        )
        print(f"{report.documents} conversations, {report.tokens} tokens of {report.dtype}")
        print(f"{report.samples} samples of {LENGTH}, {report.dropped} tokens left out at the end")
        print("tokens of each side:", dict(sorted(report.parts.items())))

        with sp.open_dataset(target) as dataset:
            print("a sample:", ", ".join(f"{n} {f.dtype}" for n, f in dataset.schema.items()))
            counting = seen = 0
            for batch in sp.Pipeline(dataset, shuffle="binwise", seed=0).batch(32):
                counting += int(batch["loss_mask"].sum())
                seen += batch["tokens"].size
                # Attention within conversations alone: where one begins, or goes on.
                starts = np.flatnonzero(batch["local_position"].ravel() == 0)
                assert starts[0] == 0
            print(f"{counting} of {seen} tokens count for the loss")
        assert seen == report.tokens - report.dropped
        print("made of", sp.token_info(target)[0]["tokenizer"]["name"])


# Worker processes import this file again: without this line, each would start the job as well.
if __name__ == "__main__":
    main()
