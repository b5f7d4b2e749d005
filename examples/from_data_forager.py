"""From data-forager: its indices over JSONL and over packed tokens, read where they lie.

The original package indexes a folder and packs tokens; nothing is converted. ``JsonlDataset`` and
``TokensDataset`` become datasets; token samples batch straight into one array.

Run it: ``python examples/from_data_forager.py`` (``pip install data-forager`` first)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import splitpipe as sp

# The original, in a process of its own: it prints its progress and sets up logging.
ORIGINAL = """
import sys
import numpy as np
from data_forager.indexers.jsonl_indexer import create_default_jsonl_indexer
from data_forager.indexers.tokenization_indexer import create_tokenize_and_index_jsonl_text_func

create_default_jsonl_indexer(sys.argv[1])()
create_tokenize_and_index_jsonl_text_func(
    tokenizer_func=lambda text: [len(word) for word in text.split()],
    eos_idx=0,
    input_base_path=sys.argv[2],
    sample_size=8,
    token_dtype=np.uint16,
)()
"""


def write_corpus(folder: Path) -> Path:
    """Three JSONL files."""
    folder.mkdir()
    for number in range(3):
        rows = [{"id": 100 * number + n, "text": "some more words " * n} for n in range(100)]
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / f"part{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def main() -> None:
    """Index with the original, read, then batch tokens."""
    with tempfile.TemporaryDirectory() as folder:
        lines = write_corpus(Path(folder, "lines"))
        tokens = write_corpus(Path(folder, "tokens"))
        program = [sys.executable, "-W", "ignore", "-c", ORIGINAL, str(lines), str(tokens)]
        subprocess.run(program, check=True, capture_output=True)

        # Was: dataset = JsonlDataset.create_from_index_on_filesystem("lines"); dataset[7]
        ds = sp.open_dataset(lines)
        print(f"{len(ds)} samples, number 107 is {ds[107]['id']}")

        # Was: TokensDataset.create_from_index_on_filesystem("tokens", token_dtype=np.uint16)
        #      DataLoader(dataset, batch_size=8, shuffle=True)
        packed = sp.open_dataset(tokens, dtype="uint16")
        batch = packed.get_batch(np.arange(8))
        print(f"{packed.schema}: a batch of shape {batch.shape}, {batch.dtype}")
        pipe = sp.Pipeline(packed, shuffle="global", seed=0).batch(8, drop_last=True)
        with pipe.loader() as loader:
            shapes = {batch.shape for batch in loader}
        print(f"batches of an epoch: {shapes}")


if __name__ == "__main__":
    main()
