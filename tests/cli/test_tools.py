"""The commands that work on datasets: what they make, what they say, how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.cli.app import run
from tests.cli.command import TIMEOUT_S, arguments, environment, splitpipe
from tests.cli.making import WORDS, fails, printed, succeeds, word_level

COUNT = 60


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Records of several columns, with keys and metadata."""
    path = tmp_path / "data"
    with sp.DatasetWriter(path, bins=2) as writer:
        for n in range(COUNT):
            record = {
                "text": "a b c"[: 1 + n % 5],
                "n": n,
                "x": float("nan") if n == 3 else n / 2,
                "v": np.full(4, n, np.float32),
                "day": np.datetime64(n, "D"),
            }
            writer.write(record, key=f"k{n}", meta={"group": n % 3})
    return path


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """JSONL with one broken line."""
    path = tmp_path / "a.jsonl"
    rows = [json.dumps({"text": "a b", "n": n}) for n in range(COUNT)]
    path.write_text("\n".join([*rows[:7], "{broken", *rows[7:]]))
    return path


class TestHead:
    def test_keys_and_metadata_are_shown(
        self, dataset: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = succeeds(capsys, "head", "-n", 1, "-s", 3, dataset)
        assert text.splitlines()[:2] == ["3  key k3", '   meta {"group": 0}']
        line = printed(capsys, "head", "-n1", "--start", 3, dataset)
        assert line["record"]["x"] == "NaN"
        assert line["record"]["day"] == "1970-01-04"
        assert line["record"]["v"] == {"dtype": "float32", "shape": [4], "values": [3.0] * 4}

    def test_numbers_that_json_has_not(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with sp.DatasetWriter(tmp_path / "a", {"v": sp.ndarray("float64"), "j": "json"}) as writer:
            writer.write({"v": [[np.inf, -np.inf], [np.nan, 1]], "j": [float("nan"), {"a": None}]})
        record = printed(capsys, "head", tmp_path / "a")["record"]
        assert record["v"]["values"] == [["Infinity", "-Infinity"], ["NaN", 1.0]]
        assert record["j"] == ["NaN", {"a": None}]

    def test_past_the_end_is_nothing(
        self, dataset: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert succeeds(capsys, "head", "--start", COUNT + 5, dataset) == ""


class TestOptions:
    def test_of_a_format(self, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["-o", "broken=skip", "--option", "validate=true", "-o", 'columns=["n"]']
        found = printed(capsys, "info", lines, *words)
        assert (found["records"], found["skipped"], found["columns"]) == (COUNT, 1, {"n": "json"})

    @pytest.mark.parametrize("option", ["nothing", "=1", "speed=9", "format=csv"])
    def test_that_cannot_be(
        self, lines: Path, capsys: pytest.CaptureFixture[str], option: str
    ) -> None:
        assert option.partition("=")[0] in fails(capsys, "info", lines, "-o", option)

    @pytest.mark.parametrize(
        "words",
        [
            ["--compression=lz4"],
            ["--compression=zstd:much"],
            ["--compression=zstd:99"],
            ["--dictionary"],
            ["--bins=70000"],
        ],
    )
    def test_of_writing_that_cannot_be(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
    ) -> None:
        fails(capsys, "convert", "-w0", dataset, tmp_path / "copy", *words)
        assert not (tmp_path / "copy").exists()


class TestStats:
    def test_json(self, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = printed(capsys, "stats", dataset, "--sample", 0)
        by_name = {column["name"]: column for column in found["columns"]}
        assert by_name["n"]["numbers"]["mean"] == (COUNT - 1) / 2
        assert by_name["x"]["numbers"]["not_finite"] == 1
        assert by_name["v"]["shapes"] == [[[4], COUNT]]
        assert by_name["day"]["unit"] == "D"
        assert by_name["text"]["common"][0] == ["a", 12]

    def test_text_is_for_people(self, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = succeeds(capsys, "stats", dataset, "-n", 0)
        assert re.search(r"^n: int64, 60 values$", text, re.MULTILINE)
        assert "1970-01-01 to 1970-03-01" in text
        assert "1 not finite" in text
        assert "a sample of 7 looked at" in succeeds(capsys, "stats", dataset, "-n", 7)

    def test_an_empty_dataset(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with sp.DatasetWriter(tmp_path / "a", {"n": "int64"}):
            pass
        assert "n: int64, 0 values" in succeeds(capsys, "stats", tmp_path / "a")


class TestIndex:
    def test_says_what_was_found(
        self, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["index", lines, "--index-dir", tmp_path / "indices", "-w", 1]
        found = printed(capsys, *words, "-o", "broken=skip", "-o", "validate=true")
        assert (found["records"], found["skipped"]) == (COUNT, 1)
        assert list((tmp_path / "indices").iterdir())
        assert "61 records, opened in" in succeeds(capsys, *words)


class TestConvert:
    def test_text_and_json(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = tmp_path / "copy"
        words = ["convert", dataset, copy, "--bins=1"]
        text = succeeds(capsys, *words, "--compression=zstd:5")
        assert text.startswith(f"{copy}: 60 records (")
        assert text.endswith("all compared, all equal\n")
        assert printed(capsys, *words)["resumed_at"] == COUNT
        with sp.open_dataset(copy) as made, sp.open_dataset(dataset) as source:
            assert repr(made[:]) == repr(source[:])
            assert made.metas() == source.metas()
            assert made.schema["text"].compression == "zstd"

    def test_a_broken_record_is_named_and_what_was_left_out_is_counted(
        self, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for workers in (0, 1):
            words = ["convert", lines, tmp_path / f"copy {workers}", "--bins=1", "-w", workers]
            assert re.search(r"record 7 of .*a\.jsonl.*line 8", fails(capsys, *words))
        skipping = ["-o", "broken=skip", "-o", "validate=true", "--overwrite"]
        assert "1 broken ones left out" in succeeds(capsys, *words, *skipping)

    def test_another_dataset_is_refused(
        self, dataset: Path, lines: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = fails(capsys, "convert", lines, dataset, "-w0")
        assert "choose another directory, or say overwrite" in text

    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
    )
    def test_a_signal_keeps_what_was_copied(self, tmp_path: Path, number: int, code: int) -> None:
        """The program is stopped while a worker reads a pipe's worth of records."""
        source = tmp_path / "source"
        sp.write_split_data(source, [b"%d" % n * 1000 for n in range(3000)], splits=1)
        script = tmp_path / "program.py"
        script.write_text(
            "import os, sys\n"
            "from splitpipe.cli import main\n"
            "from splitpipe.conversion import blocks, target\n"
            "blocks.BLOCK_NBYTES = 10_000\n"
            "add = target.Target.add\n"
            "def telling(self, block):\n"
            "    add(self, block)\n"
            "    if block.start > 100:\n"
            "        print('waiting', flush=True)\n"
            "        sys.stdin.read()\n"  # until the signal
            "target.Target.add = telling\n"
            "if __name__ == '__main__': sys.exit(main())\n"
        )
        command = [sys.executable, str(script), "convert", str(source), str(tmp_path / "copy")]
        with subprocess.Popen(
            [*command, "-w1"],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            os.killpg(process.pid, number) if number == signal.SIGINT else process.terminate()
            _, problems = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == code
        assert "Traceback" not in problems
        with sp.open_dataset(tmp_path / "copy") as copy:
            kept = len(copy)
        assert 0 < kept < 3000
        done = splitpipe("convert", source, tmp_path / "copy", "--json", "-w0")
        assert json.loads(done.stdout)["resumed_at"] == kept


class TestSplit:
    def test_parts_are_disjoint_and_together_everything(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["split", dataset, tmp_path / "parts", "-w0", "--bins=1"]
        found = printed(capsys, *words, "--parts", "a=0.5,b=0.5", "--seed", 3)
        assert {name: part["records"] for name, part in found.items()} == {"a": 30, "b": 30}
        keys: list[Any] = []
        for name in "ab":
            with sp.open_dataset(tmp_path / "parts" / name) as part:
                keys += part.keys()
        assert sorted(keys) == sorted(f"k{n}" for n in range(COUNT))

    def test_called_again_it_goes_on_and_another_split_is_refused(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["split", dataset, tmp_path / "parts", "-w0", "--bins=1", "--parts=a=.5,b=.5"]
        succeeds(capsys, *words)
        found = printed(capsys, *words)
        assert {part["resumed_at"] for part in found.values()} == {30}
        assert "is not a copy of" in fails(capsys, *words, "--seed=4")
        succeeds(capsys, *words, "--seed=4", "--overwrite")

    def test_groups_stay_together(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--by=group", "--how=group", "--parts=a=0.7,b=0.3", "-w0", "--bins=1"]
        succeeds(capsys, "split", dataset, tmp_path / "parts", *words)
        groups = []
        for name in "ab":
            with sp.open_dataset(tmp_path / "parts" / name) as part:
                groups.append({meta["group"] for meta in part.metas()})
        assert groups[0].isdisjoint(groups[1])

    @pytest.mark.parametrize("parts", ["a", "a=x", "a=1,a=0", "../a=1", "a=0.5", "a=0.999,b=0.001"])
    def test_parts_that_cannot_be(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], parts: str
    ) -> None:
        fails(capsys, "split", dataset, tmp_path / "parts", "--parts", parts)
        assert not (tmp_path / "parts").exists()


class TestTokenize:
    def test_with_a_tokenizer_of_the_package(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--tokenizer", word_level(tmp_path), "--text=text", "--eos=<eos>", "--bins=1"]
        tokens = tmp_path / "tokens"
        more = ["--length=8", "--remainder=pad", "--pad=<pad>", "--arrays=document,position"]
        found = printed(capsys, "tokenize", dataset, tokens, *words, *more)
        texts = ["a b c"[: 1 + n % 5].split() for n in range(COUNT)]
        stream = [WORDS.index(word) for text in texts for word in (*text, "<eos>")]
        assert (found["tokens"], found["documents"]) == (len(stream), COUNT)
        with sp.open_dataset(tokens) as made:
            got = np.concatenate([record["tokens"] for record in made]).tolist()
            assert list(made.schema) == ["tokens", "document", "position"]
        padding = [WORDS.index("<pad>")] * found["padding"]
        assert got == stream + padding
        text = succeeds(capsys, "tokenize", dataset, tokens, *words, *more, "--overwrite", "-w0")
        assert text.startswith(f"{tokens}: 60 documents, {len(stream)} tokens of uint16 in ")

    def test_appending_and_refusing(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--tokenizer", word_level(tmp_path), "--text=text", "-w0", "--bins=1"]
        target = tmp_path / "tokens"
        first = printed(capsys, "tokenize", dataset, target, *words, "--length=4")
        assert "already" in fails(capsys, "tokenize", dataset, target, *words, "--length=4")
        printed(capsys, "tokenize", dataset, target, *words, "--length=4", "--append")
        with sp.open_dataset(target) as made:
            assert len(made) == 2 * first["samples"]
        other = [*words, "--length=5", "--append"]
        assert "another packing" in fails(capsys, "tokenize", dataset, target, *other)

    def test_skipping(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        lines = tmp_path / "lines.jsonl"
        lines.write_text('{"text": "a b"}\n{"n": 1}\n{"text": "c"}\n')
        words = ["--tokenizer", word_level(tmp_path), "-w0", "--bins=1", "--length=1"]
        text = fails(capsys, "tokenize", lines, tmp_path / "tokens", *words)
        assert "record 1" in text
        assert "has no 'text'" in text
        words.append("--on-error=skip")
        found = printed(capsys, "tokenize", lines, tmp_path / "tokens", *words)
        assert (found["documents"], found["skipped"], found["samples"]) == (2, 1, 3)
        assert "has no 'text'" in found["faults"][0]
        again = ["tokenize", lines, tmp_path / "tokens", "--overwrite", *words]
        assert run([str(word) for word in again]) == 0
        said = capsys.readouterr()
        assert "2 documents, 1 skipped, 3 tokens" in said.out
        assert said.err.startswith("skipped: record 1 of ")

    def test_without_a_tokenizer(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["tokenize", str(dataset), str(tmp_path / "tokens")]) == 2
        assert "--tokenizer" in capsys.readouterr().err
        missing = tmp_path / "none.json"
        words = ["--tokenizer", missing, "--text=text"]
        assert str(missing) in fails(capsys, "tokenize", dataset, tmp_path / "tokens", *words)


class TestRepair:
    def test_a_lost_index(self, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with sp.open_dataset(dataset) as source:
            before = repr(source[:])
        (dataset / "v0001-c001.index").unlink()
        assert fails(capsys, "head", dataset)
        assert "index of n made again" in succeeds(capsys, "repair", dataset)
        with sp.open_dataset(dataset) as source:
            assert repr(source[:]) == before
        found = printed(capsys, "repair", dataset)
        assert (found["ok"], found["columns"]) == (True, [])

    @pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
    def test_records_that_are_lost_are_named_and_the_exit_code_says_so(
        self, dataset: Path, capsys: pytest.CaptureFixture[str], as_json: bool
    ) -> None:
        (dataset / "v0001-c000.index").unlink()
        victim = dataset / "v0001-c000-b00001.bin"
        data = bytearray(victim.read_bytes())
        data[-1] ^= 0xFF
        victim.write_bytes(data)
        code = run(["repair", str(dataset), *(["--json"] if as_json else [])])
        text, problems = capsys.readouterr()
        assert (code, problems) == (1, "")
        if as_json:
            found = json.loads(text)
            assert found["ok"] is False
            assert found["lost"] == [["text", COUNT - 1]]
        else:
            assert f"column 'text' of record {COUNT - 1}" in text


class TestCompact:
    def test_gives_back_room(self, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with sp.DatasetWriter(dataset, append=True) as writer:
            writer.delete(range(50))
        found = printed(capsys, "compact", dataset, "--bins=1")
        assert found["rows"] == 10
        assert found["nbytes_after"] < found["nbytes_before"]
        assert "10 records" in succeeds(capsys, "compact", dataset)


class TestEndings:
    @pytest.mark.parametrize("name", ["info", "head", "check", "stats"])
    def test_a_reader_that_leaves_early(self, dataset: Path, name: str) -> None:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as gone:
            done = subprocess.run(
                arguments(name, dataset),
                env=environment(),
                stdout=gone,
                stderr=subprocess.PIPE,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        assert (done.returncode, done.stderr) == (0, "")

    def test_progress_is_for_terminals(self, dataset: Path, tmp_path: Path) -> None:
        """Colours that the environment asks for do not make a log file a terminal."""
        words = ["convert", dataset, tmp_path / "copy", "-w0", "--bins=1"]
        done = splitpipe(*words, FORCE_COLOR="1")
        assert (done.returncode, done.stderr) == (0, "")
        terminal, end = pty.openpty()
        try:
            shown = subprocess.run(
                arguments(*words),
                env=environment(TERM="xterm"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=end,
                timeout=TIMEOUT_S,
                check=True,
            )
            assert b"compare" in os.read(terminal, 1 << 16)
        finally:
            os.close(end)
            os.close(terminal)
        assert b"\x1b" not in shown.stdout

    @pytest.mark.parametrize(
        "words",
        [
            ["stats"],
            ["index"],
            ["convert", "copy"],
            ["split", "copy"],
            ["repair"],
            ["compact"],
        ],
        ids=lambda words: words[0],
    )
    def test_what_is_not_there_is_one_line(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        words: list[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        missing = tmp_path / "missing"
        assert str(missing) in fails(capsys, words[0], missing, *words[1:])
        assert list(tmp_path.iterdir()) == []
