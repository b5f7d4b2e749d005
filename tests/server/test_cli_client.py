"""``splitpipe client`` and ``splitpipe top --url`` at a real server: all that the page can do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitpipe.cli.app import run
from tests.server.app.test_datasets import write_csv
from tests.server.serving import Served, run_splitpipe, serving

pytestmark = [
    pytest.mark.long,
    pytest.mark.deadline(120),
    pytest.mark.leaks("the server of this module keeps a process in reserve"),
]

MODULE = """
from splitpipe.server.modules import filter, preprocessor

@filter
def even(sample, *, offset: int = 0) -> bool:
    '''Records with an even number.'''
    return (int(sample["number"]) + offset) % 2 == 0

@preprocessor
def doubled(batch):
    return {"double": batch["number"] * 2}
"""


class Terminal:
    """Commands as a user types them, in this process."""

    def __init__(self, server: Served, capsys: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self._capsys = capsys

    def text(self, *words: str, code: int = 0) -> str:
        self._capsys.readouterr()
        found = run(["client", *words, "--url", self.server.url])
        said = self._capsys.readouterr()
        assert found == code, said.err
        return said.err if code else said.out

    def json(self, *words: str) -> Any:
        return json.loads(self.text(*words, "--json"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("terminal")
    modules = folder / "modules"
    modules.mkdir()
    (modules / "mine.py").write_text(MODULE)
    write_csv(folder / "texts", rows=10)
    with serving(
        folder / "root", "--allow-root", str(folder), "--modules", str(modules)
    ) as running:
        yield running


@pytest.fixture
def terminal(server: Served, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(server, capsys)


def test_datasets(terminal: Terminal, tmp_path: Path) -> None:
    folder = terminal.server.root.parent
    assert terminal.json("datasets", "create", "news", "--join", "inner")["name"] == "news"
    added = terminal.json(
        "column-sets", "add", "news", "main", str(folder / "texts"), "--format", "csv"
    )
    assert added["rows"] == 10
    assert "news" in terminal.text("datasets", "list")
    assert terminal.json("datasets", "get", "news")["records"] == 10
    lines = terminal.text("datasets", "preview", "news", "--limit", "2").splitlines()
    assert len(lines) == 2
    value = tmp_path / "value"
    terminal.text("datasets", "media", "news", "1", "text", str(value))
    assert value.read_bytes() == b"text 1"
    (one,) = terminal.json("column-sets", "list", "news")
    assert terminal.json("column-sets", "get", "news", "main")["location"] == one["location"]
    typed = ("--format", "csv", "--types", '{"text": "str"}')
    terminal.text("datasets", "create", "typed")
    terminal.text("column-sets", "add", "typed", "main", str(folder / "texts"), *typed)
    (column,) = terminal.json("datasets", "get", "typed")["columns"]
    assert column["name"] == "text"
    assert terminal.json("datasets", "check", "news", "--wait")["result"]["unreadable"] == 0
    assert terminal.json("column-sets", "sync", "news", "main", "--wait")["status"] == "done"
    assert "--count" in terminal.text("datasets", "statistics", "news", code=1)
    assert json.loads(terminal.text("datasets", "statistics", "news", "--count"))
    source = write_csv(tmp_path / "more", rows=10) / "part.csv"
    terminal.text("datasets", "create", "copy")
    sent = terminal.json("column-sets", "upload", "copy", "sent", str(source), "--column", "text")
    assert sent["rows"] == 10
    assert "forgot" in terminal.text("column-sets", "remove", "copy", "sent")
    assert "forgot" in terminal.text("datasets", "delete", "copy")
    assert terminal.text("datasets", "get", "copy", code=1).startswith("splitpipe: ")


def test_preprocessing_and_tasks(terminal: Terminal) -> None:
    made = terminal.json(
        *("datasets", "preprocess", "news", "made", "--preprocessor", "doubled"),
        *("--batch-size", "4", "--column", "number", "--output", "double"),
        *("--on-error", "skip", "--wait"),
    )
    assert made["status"] == "done"
    assert made["id"] in terminal.text("tasks", "list")
    assert terminal.json("tasks", "get", made["id"], "--wait")["kind"] == "preprocess"
    assert terminal.json("tasks", "abort", made["id"])["status"] == "done"
    sets = terminal.json("datasets", "get", "news")["column_sets"]
    assert [one["name"] for one in sets] == ["main", "made"]


def test_iterations(terminal: Terminal, tmp_path: Path) -> None:
    spec = {"dataset": "news", "batch_size": 2, "filters": [{"name": "even"}]}
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec))
    tried = json.loads(terminal.text("iterations", "try", f"@{file}", "--count", "2"))
    assert tried["error"] is None
    assert [one["samples"] for one in tried["batches"]] == [2, 2]
    program = terminal.text("iterations", "snippet", json.dumps(spec))
    compile(program, "snippet", "exec")
    assert terminal.server.url in program
    made = terminal.json("iterations", "create", f"@{file}", "--id", "mine")
    assert terminal.json("iterations", "create", f"@{file}", "--id", "mine")["id"] == made["id"]
    assert "mine" in terminal.text("iterations", "list")
    assert terminal.json("iterations", "get", "mine")["status"] == "ready"
    assert terminal.json("iterations", "stop", "mine")["status"] == "stopped"
    assert terminal.json("iterations", "start", "mine")["status"] == "running"
    assert terminal.json("iterations", "pushback", "mine") == {"batches": 0}
    assert run(["top", "--url", terminal.server.url, "--once"]) == 0
    assert run(["top", "--url", terminal.server.url, "--json"]) == 0
    assert "forgot" in terminal.text("iterations", "delete", "mine")
    assert "is no JSON" in terminal.text("iterations", "create", "{", code=1)


def test_modules(terminal: Terminal) -> None:
    told = terminal.json("modules", "list")
    assert {one["name"] for one in told["modules"]} == {"even", "doubled"}
    broken = terminal.server.root.parent / "modules" / "broken.py"
    broken.write_text("import nothing_of_that_name\n")
    try:
        said = terminal.text("modules", "reload")
        assert "even" in said
        assert "broken.py" in said
        assert "nothing_of_that_name" in said
    finally:
        broken.unlink()
        terminal.text("modules", "reload")


def test_tokens(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = terminal.json("tokens", "create", "laptop", "--role", "read", "--expires", "1h")
    file = tmp_path / "token"
    file.write_text(made["token"] + "\n")
    assert "laptop" in terminal.text("tokens", "list")
    refused = terminal.text("tokens", "list", "--token-file", str(file), code=1)
    assert "admin" in refused
    assert terminal.text("datasets", "list", "--token-file", str(file))
    terminal.text("tokens", "delete", made["id"])
    monkeypatch.setenv("SPLITPIPE_TOKEN", made["token"])
    assert made["token"] not in terminal.text("datasets", "list", code=1)


def test_no_server_there(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_splitpipe("client", "datasets", "list", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
