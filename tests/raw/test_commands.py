"""The commands that show datasets, for raw samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.making import fails, printed, succeeds
from tests.servers import FileServer


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
    rows = "".join(f"{n}.txt,{n}\n" for n in range(5))
    (tmp_path / "table.csv").write_text("file,n\n" + rows)
    return tmp_path / "table.csv"


def test_info_is_a_plan(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--format", "raw", "-o", "fetch=file"]
    text = succeeds(capsys, "info", table, *how)
    assert "5 of" in text
    assert "fetched as 'file' says" in text
    facts = printed(capsys, "info", table, *how, "--json")
    assert facts["records"] == 5
    assert facts["plan"]["requests"] == 5


def test_head_fetches(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--format", "raw", "-o", "fetch=file", "-o", 'decode={"file": "text"}', "-n1", "-s2"]
    assert "file: text 2" in succeeds(capsys, "head", table, *how)
    line = printed(capsys, "head", table, *how, "--json")
    assert line["record"] == {"file": "text 2", "n": "2"}


def test_a_url_stays_one(
    table: Path, file_server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (file_server.folder / "table.csv").write_text("file\na.txt\n")
    (file_server.folder / "a.txt").write_text("hello")
    url = f"{file_server.url}/table.csv"
    text = succeeds(capsys, "head", url, "--format", "raw", "-o", "fetch=file", "-n1")
    assert "hello" in text


def test_what_is_missing_is_said(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "fetch=" in fails(capsys, "info", table, "--format", "raw")
    assert "no option" in fails(capsys, "info", table, "--format", "raw", "-o", "nothing=1")
