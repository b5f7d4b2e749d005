"""Beside data-forager: the same samples, and a mask that says the same the other way round."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

import splitpipe as sp
from tests.tokens.making import code_points

# The package changes logging and warnings of the whole process when it is imported.
PROGRAM = """
import json, sys
from data_forager.indexers.tokenization_indexer import create_tokenize_and_index_with_aux_func
from data_forager.sample_generators.aux import LossMaskGenerator, Part

create_tokenize_and_index_with_aux_func(
    process_parts_func=lambda line: [Part(type=k, text=t) for k, t in json.loads(line)["parts"]],
    tokenizer_func=lambda text: [ord(character) for character in text],
    eos_idx=0,
    aux_generators={"loss_mask": LossMaskGenerator(masked_types={"user"})},
    input_base_path=sys.argv[1],
    output_base_path=sys.argv[2],
    sample_size=16,
)()
"""


@pytest.mark.skipif(
    importlib.util.find_spec("data_forager") is None, reason="data-forager is not installed"
)
def test_the_same_samples_and_the_inverse_mask(tmp_path: Path) -> None:
    rng = random.Random(3)
    documents = [
        [
            (k, "x" * rng.randint(0, 30))
            for _ in range(rng.randint(1, 3))
            for k in ("user", "answer")
        ]
        for _ in range(200)
    ]
    texts, theirs, ours = (tmp_path / name for name in ("texts", "theirs", "ours"))
    texts.mkdir()
    for number in range(2):  # tokens are carried from file to file
        lines = [json.dumps({"parts": parts}) + "\n" for parts in documents[number * 100 :][:100]]
        (texts / f"{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(texts), str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr

    report = sp.tokenize(
        texts, ours, code_points, length=16, eos=0, text="parts", loss="answer", block=7
    )
    with sp.open_dataset(theirs) as expected, sp.open_dataset(ours) as found:
        assert len(expected) == len(found) == report.samples > 300
        rows = range(report.samples)
        want, got = expected.get_batch(rows), found.get_batch(rows)
    assert (got["tokens"] == want["tokens"]).all()
    assert (got["loss_mask"] == 1 - want["loss_mask"]).all()
    assert 0 < got["loss_mask"].mean() < 1
