"""data-forager's indices, written by the original package."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe.errors import CorruptRecord, FormatError, StorageError
from splitpipe.formats.base import Source
from splitpipe.formats.seeds.data_forager import FORMAT
from splitpipe.schema import Schema, ndarray
from tests.formats.damage import all_of, mutations, open_as, read_plainly, survives, truncations
from tests.formats.reading import contents

ROWS = [{"id": n, "text": "wörd " * (n % 9)} for n in range(90)]
PARTS = [{"type": "prompt", "text": "a b"}, {"type": "response", "text": "long words"}]

# The package changes logging and warnings of the whole process when it is imported, so that it
# works in one of its own.
PROGRAM = """
import json, sys
import numpy as np
from data_forager.indexers.jsonl_indexer import create_default_jsonl_indexer
from data_forager.indexers.tokenization_indexer import (
    create_tokenize_and_index_jsonl_text_func,
    create_tokenize_and_index_with_aux_func,
)
from data_forager.sample_generators.aux import LossMaskGenerator, Part

def tokenizer(text):
    return [len(word) for word in text.split(" ")]

root = sys.argv[1]
create_default_jsonl_indexer(root + "/lines")()
for name, size in (("tokens", 4), ("free", None)):
    create_tokenize_and_index_jsonl_text_func(
        tokenizer_func=tokenizer, eos_idx=0, input_base_path=f"{root}/{name}",
        sample_size=size, token_dtype=np.uint16,
    )()
create_tokenize_and_index_with_aux_func(
    process_parts_func=lambda line: [Part(**part) for part in json.loads(line)["parts"]],
    tokenizer_func=tokenizer, eos_idx=0, aux_generators={"loss_mask": LossMaskGenerator()},
    input_base_path=root + "/masked", sample_size=4, token_dtype=np.uint32,
)()
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four folders, indexed by the original package."""
    root = tmp_path_factory.mktemp("forager")
    for name in ("lines", "tokens", "free", "masked"):
        rows: list[Any] = [{"parts": PARTS}] * 12 if name == "masked" else ROWS
        (root / name).mkdir()
        for number in range(3):
            lines = [json.dumps(row, ensure_ascii=False) for row in rows[number::3]]
            path = root / name / f"part{number}.jsonl"
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def indexed(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written / "lines", tmp_path / "data"))


@pytest.fixture
def tokens(written: Path, tmp_path: Path) -> Path:
    """Samples of four tokens each."""
    return Path(shutil.copytree(written / "tokens", tmp_path / "tokens"))


@pytest.fixture
def masked(written: Path, tmp_path: Path) -> Path:
    """Samples of four tokens and a loss mask."""
    return Path(shutil.copytree(written / "masked", tmp_path / "masked"))


class TestGood:
    def test_json_lines(self, indexed: Path) -> None:
        before = contents(indexed)
        assert all_of(FORMAT, indexed) == ROWS[0::3] + ROWS[1::3] + ROWS[2::3]
        assert contents(indexed) == before
        assert open_as(FORMAT, indexed).schema == Schema("json")

    def test_the_lines_as_text_or_bytes(self, indexed: Path) -> None:
        first = (indexed / "part0.jsonl").read_bytes().splitlines(keepends=True)
        assert all_of(FORMAT, indexed, kind="bytes")[:30] == first
        assert all_of(FORMAT, indexed, kind="str")[:30] == [line.decode() for line in first]

    def test_tokens(self, tokens: Path) -> None:
        stored = [
            np.fromfile(path, np.uint16).reshape(-1, 4)
            for path in sorted((tokens / "tokenized-samples").glob("*.bin"))
        ]
        records = open_as(FORMAT, tokens, dtype="uint16")
        assert records.schema == Schema(ndarray("uint16", (4,)))
        rows = np.arange(len(records))
        batch = records.read(rows, ["data"])["data"]
        assert np.array_equal(batch, np.concatenate(stored))
        all_of(FORMAT, tokens, dtype=np.uint16)
        assert all_of(FORMAT, tokens) == [row.tobytes() for row in np.concatenate(stored)]

    def test_tokens_of_any_length(self, written: Path) -> None:
        folder = written / "free"
        assert open_as(FORMAT, folder, dtype="uint16").schema["data"].shape == (None,)
        found = all_of(FORMAT, folder, dtype="uint16")
        assert len({len(one) for one in found}) > 2
        paths = sorted((folder / "tokenized-samples").glob("*.bin"))
        stored = np.concatenate([np.fromfile(path, np.uint16) for path in paths])
        assert np.array_equal(np.concatenate(found), stored)

    def test_a_schema(self, masked: Path) -> None:
        records = open_as(FORMAT, masked)
        assert records.schema == Schema(
            {"tokens": ndarray("uint32", (4,)), "loss_mask": ndarray("uint8", (4,))}
        )
        assert len(records) == 15
        batch: Any = records.read(np.array([0]), ["loss_mask", "tokens"])
        assert batch["tokens"].tolist() == [[1, 1, 4, 5]]
        assert batch["loss_mask"].tolist() == [[1, 1, 0, 0]]
        all_of(FORMAT, masked)

    def test_absolute_paths_and_parents(self, indexed: Path, tmp_path: Path) -> None:
        names = indexed / "index" / "file_location.txt"
        lines = names.read_text().splitlines()
        outside = tmp_path / "outside.jsonl"
        (indexed / lines[1]).rename(outside)
        lines[0] = str(indexed / lines[0])
        lines[1] = os.path.relpath(outside, indexed)
        names.write_text("\n".join(lines) + "\n")
        assert all_of(FORMAT, indexed) == ROWS[0::3] + ROWS[1::3] + ROWS[2::3]

    def test_an_index_under_another_name(self, indexed: Path) -> None:
        (indexed / "index").rename(indexed / "other")
        assert not FORMAT.recognises(Source.at(indexed))
        assert len(open_as(FORMAT, indexed, index_folder="other")) == len(ROWS)


class TestDamage:
    def test_a_file_that_is_missing(self, indexed: Path) -> None:
        (indexed / "part1.jsonl").unlink()
        with pytest.raises(StorageError, match=r"has the data been moved.*part1\.jsonl"):
            read_plainly(FORMAT, indexed)

    def test_a_pipe_in_place_of_a_file(self, indexed: Path) -> None:
        (indexed / "part1.jsonl").unlink()
        os.mkfifo(indexed / "part1.jsonl")
        with pytest.raises(FormatError, match=r"part1\.jsonl.* is no regular file"):
            read_plainly(FORMAT, indexed)

    def test_a_file_that_was_cut(self, indexed: Path) -> None:
        (indexed / "part1.jsonl").write_bytes(b"{}")
        with pytest.raises(CorruptRecord, match=r"part1\.jsonl"):
            read_plainly(FORMAT, indexed)

    def test_a_file_that_changed(self, indexed: Path) -> None:
        file = indexed / "part0.jsonl"
        file.write_bytes(file.read_bytes().replace(b'{"id', b'["id'))
        with pytest.raises(CorruptRecord, match=r"sample 0 of .*were its files changed"):
            read_plainly(FORMAT, indexed)

    def test_an_index_cut_inside_of_an_entry(self, indexed: Path) -> None:
        index = indexed / "index" / "sample_locations.bin"
        index.write_bytes(index.read_bytes()[:-1])
        with pytest.raises(FormatError, match="89 samples are before it"):
            open_as(FORMAT, indexed)
        assert len(open_as(FORMAT, indexed, incomplete="ignore")) == 89

    @pytest.mark.parametrize(
        ("entry", "match"),
        [
            ((7, 0, 1), r"sample 3 of .* lies in file 7, file_location\.txt names 3"),
            ((0, 1 << 40, 1), r"part0\.jsonl"),
            ((0, 0, 1 << 40), r"part0\.jsonl"),
            ((0, (1 << 64) - 1, 2), "beyond"),
            ((0, (1 << 62) - 1, (1 << 62) - 1), r"part0\.jsonl"),
        ],
    )
    def test_an_entry_that_lies(
        self, indexed: Path, entry: tuple[int, int, int], match: str
    ) -> None:
        index = indexed / "index" / "sample_locations.bin"
        data = bytearray(index.read_bytes())
        struct.pack_into("<QQQ", data, 72, *entry)
        index.write_bytes(data)
        records = open_as(FORMAT, indexed)
        with pytest.raises(CorruptRecord, match=match):
            records.read(np.array([3]), ["data"])

    @pytest.mark.parametrize(
        "change",
        [
            {"sample_size": -1},
            {"sample_size": 1 << 50},
            {"arrays": []},
            {"arrays": [{"name": "tokens", "dtype": "object", "offset": 0}]},
            {"arrays": [{"name": "tokens", "dtype": "uint32", "offset": 17}]},
            {"arrays": [{"name": "tokens", "dtype": "uint32", "offset": -4}]},
            {"arrays": [{"name": "tokens", "dtype": {}, "offset": 0}]},
            {"total_bytes_per_sample": 3},
        ],
    )
    def test_a_schema_that_lies(self, masked: Path, change: dict[str, Any]) -> None:
        path = masked / "index" / "sample_schema.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(FormatError, match=r"sample_schema\.json"):
            open_as(FORMAT, masked)

    def test_a_schema_of_other_samples(self, masked: Path) -> None:
        path = masked / "index" / "sample_schema.json"
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, "total_bytes_per_sample": 24}))
        with pytest.raises(CorruptRecord, match="20 bytes, the schema says 24"):
            read_plainly(FORMAT, masked)

    def test_options_that_are_none(self, indexed: Path) -> None:
        for options, match in (
            ({"kind": "pickle"}, "kind= is one of"),
            ({"dtype": "object"}, "dtype="),
            ({"incomplete": "skip"}, "'raise' or 'ignore'"),
        ):
            with pytest.raises(FormatError, match=match):
                open_as(FORMAT, indexed, **options)

    @pytest.mark.parametrize(
        ("name", "count"),
        [("sample_locations.bin", 250), ("file_location.txt", 150), ("sample_schema.json", 300)],
    )
    def test_mutated(self, masked: Path, name: str, count: int) -> None:
        assert None in [
            survives(lambda: read_plainly(FORMAT, masked))
            for _ in mutations(masked / "index" / name, count, seed=11)
        ]

    @pytest.mark.parametrize("name", ["sample_locations.bin", "sample_schema.json"])
    def test_cut_at_every_byte(self, masked: Path, name: str) -> None:
        whole = repr(read_plainly(FORMAT, masked))
        for size in truncations(masked / "index" / name):
            found = survives(lambda: read_plainly(FORMAT, masked))
            assert found is None or (name.endswith(".bin") and size % 24 == 0)
            assert found is None or repr(found)[1:-1] in whole
