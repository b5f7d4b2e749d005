"""A folder of JSONL files, and one of tokens, for data-forager to index."""

import importlib.util
import json
import os
import warnings

import numpy as np

warnings.simplefilter("ignore")  # those of others
for name in ("lines", "tokens"):
    os.mkdir(name)
    for part in range(2):
        with open(f"{name}/part{part}.jsonl", "w") as file:
            rows = ({"id": 50 * part + n, "text": "more words " * n} for n in range(50))
            file.writelines(json.dumps(row) + "\n" for row in rows)


def index_tokens():
    """What the original's command does; it warns of itself when it is imported."""
    from data_forager.indexers import tokenization_indexer as indexer

    indexer.create_tokenize_and_index_jsonl_text_func(
        tokenizer_func=lambda text: [len(word) for word in text.split()],
        eos_idx=0,
        input_base_path="tokens",
        sample_size=8,
        token_dtype=np.uint16,
    )()


index_tokens()
torch_is_here = importlib.util.find_spec("torch") is not None


def translated(code):
    if "torch" in code and not torch_is_here:
        return "rows_before = len(sp.open_dataset('tokens', dtype='uint16')) // 8 * 8"
    return code


def done():
    assert before == list(range(100))
    assert rows_before > 100
