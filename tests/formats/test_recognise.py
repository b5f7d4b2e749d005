"""Which format a path holds: told by names and first bytes, never guessed."""

from __future__ import annotations

import errno
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from splitpipe.errors import FormatError, StorageError
from splitpipe.formats import FORMATS, base, recognise
from splitpipe.formats.recognise import load, which

SMALLEST = {"jsonl": b"1\n", "csv": b"a\n1\n", "text": b"x\n"}
SUFFIXES = {
    "jsonl": [".jsonl", ".ndjson", ".JSONL"],
    "csv": [".csv", ".tsv"],
    "text": [".txt", ".text"],
}


@pytest.mark.parametrize(
    ("name", "suffix"), [(name, suffix) for name in SUFFIXES for suffix in SUFFIXES[name]]
)
def test_by_its_suffix(tmp_path: Path, name: str, suffix: str) -> None:
    for packed in ("", ".gz", ".zst"):
        file = tmp_path / f"sub{packed}" / f"a{suffix}{packed}"
        file.parent.mkdir()
        file.write_bytes(SMALLEST[name])
        assert which(base.Source.at(file)).name == name
        assert which(base.Source.at([file, file])).name == name
        assert which(base.Source.at(file.parent)).name == name
        records = recognise(file)
        assert len(records) == 1
        records.close()


def test_every_format_says_who_it_is() -> None:
    for name in FORMATS:
        form = load(name)
        assert form.name == name
        assert form.looks_like


def test_the_documentation_has_every_format_and_option() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)`\]\(#([\w-]+)\) \|.*\|([^|]*)\| [^|]*\|$", text, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(FORMATS)
    headings = {
        heading.lower().replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }
    for name, anchor, options in rows:
        assert anchor in headings
        assert sorted(re.findall(r"`(\w+)`", options)) == sorted(load(name).takes())


def test_files_that_tell_nothing_do_not_disturb(tmp_path: Path) -> None:
    for name in ("README.md", "LICENSE", ".hidden.csv", "a.jsonl"):
        (tmp_path / name).write_bytes(b"1\n")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.csv").write_bytes(b"1\n")
    assert which(base.Source.at(tmp_path)).name == "jsonl"


def test_two_formats_are_not_chosen_between(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(SMALLEST["csv"])
    (tmp_path / "a.jsonl").write_bytes(SMALLEST["jsonl"])
    with pytest.raises(FormatError, match=r"format='jsonl' or format='csv'"):
        recognise(tmp_path)
    records = recognise(tmp_path, format="csv")
    assert list(records.schema) == ["a"]
    records.close()


def test_none_is_named_with_all_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"1")
    for path in (tmp_path, tmp_path / "a.bin"):
        with pytest.raises(FormatError, match="no format here knows it") as caught:
            recognise(path)
        assert all(name in str(caught.value) for name in FORMATS)


def test_a_layout_with_a_mark_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The package's name `recognise` is the function.
    module: Any = import_module("splitpipe.formats.recognise")
    marked = base.Format("marked", "a mark", lambda s: s.has("mark"), load("csv").open, True)
    monkeypatch.setattr(module, "FORMATS", ("jsonl", "marked"))
    monkeypatch.setattr(module, "load", lambda name: marked if name == "marked" else load(name))
    (tmp_path / "a.jsonl").write_bytes(b"1\n")
    assert which(base.Source.at(tmp_path)).name == "jsonl"
    (tmp_path / "mark").write_bytes(b"")
    assert which(base.Source.at(tmp_path)).name == "marked"


def test_a_format_or_option_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"1\n")
    with pytest.raises(FormatError, match=r"no format 'json'.*jsonl"):
        recognise(tmp_path, format="json")
    with pytest.raises(TypeError, match=r"no option 'delimiter'.*columns"):
        recognise(tmp_path, delimiter=",")


class TestPaths:
    def test_that_is_not_there(self, tmp_path: Path) -> None:
        for path in (tmp_path / "no", [tmp_path / "no"]):
            with pytest.raises(StorageError, match="no such dataset") as caught:
                recognise(path)
            assert caught.value.errno == errno.ENOENT
        with pytest.raises(StorageError):
            recognise("a\0b")

    def test_a_list(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="empty list"):
            recognise([])
        with pytest.raises(FormatError, match="a folder in a list"):
            recognise([tmp_path])

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.jsonl")
        with pytest.raises(FormatError, match="neither a file nor a folder"):
            recognise(tmp_path / "pipe.jsonl")

    def test_links_to_files_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "blob").write_bytes(b"1\n2\n")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.jsonl").symlink_to(tmp_path / "blob")
        (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
        records = recognise(tmp_path / "data")
        assert len(records) == 2
        records.close()

    @pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take only text")
    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        folder = os.fsencode(tmp_path) + b"/\xff\xfe"
        os.mkdir(folder)
        with open(folder + b"/\xfa.jsonl", "wb") as file:
            file.write(b"1\n")
        records = recognise(os.fsdecode(folder))
        assert len(records) == 1
        records.close()
        again = recognise(os.fsdecode(folder) + "/" + os.fsdecode(b"\xfa.jsonl"))
        assert len(again) == 1
        again.close()

    def test_what_lies_in_it_is_looked_at_within_bounds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, "_GLANCE_NAMES", 5)
        for number in range(20):
            (tmp_path / f"{number}.jsonl").write_bytes(b"%d\n" % number)
        source = base.Source.at(tmp_path)
        assert len(source.glance()) == 5
        assert len(source.files(".jsonl")) == 20
        assert source.files(".jsonl")[9].endswith("/9.jsonl")
