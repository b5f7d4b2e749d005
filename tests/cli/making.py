"""What the tests of the commands share: a tokenizer, and running a command in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from splitpipe.cli.app import run

WORDS = ("<unk>", "<eos>", "<pad>", "a", "b", "c", "the", "end")


def word_level(folder: Path) -> Path:
    """A tokenizer.json whose tokens are words, made by the package tokenizers."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def succeeds(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command prints; it says nothing on stderr."""
    code = run([str(word) for word in words])
    text, problems = capsys.readouterr()
    assert (code, problems) == (0, "")
    return text


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """The one JSON object that a command prints, which every reader of JSON takes."""
    text = succeeds(capsys, *words, "--json")
    assert text.count("\n") == 1
    return json.loads(text, parse_constant=pytest.fail)


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command says when it cannot do what was asked."""
    code = run([str(word) for word in words])
    text, problems = capsys.readouterr()
    assert (code, text) == (1, "")
    assert problems.startswith("splitpipe: ")
    assert problems.count("\n") == 1
    return problems
