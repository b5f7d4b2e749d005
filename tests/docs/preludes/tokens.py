"""The texts, and a tokenizer of whole words, of docs/tokens.md."""

import json

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import splitpipe as sp

words = {word: n for n, word in enumerate(["<|endoftext|>", "some", "words", "[UNK]"])}
made = Tokenizer(WordLevel(words, unk_token="[UNK]"))
made.pre_tokenizer = Whitespace()
made.add_special_tokens(["<|endoftext|>"])
made.save("tokenizer.json")
with open("texts.jsonl", "w") as file:
    file.writelines(json.dumps({"text": "some words " * 100}) + "\n" for _ in range(100))


def done():
    assert sp.open_dataset("tokens").get_batch([0])["tokens"].shape == (1, 2048)
