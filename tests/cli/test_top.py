"""``splitpipe top`` on pipelines that run, and when they are gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import arguments, environment, splitpipe
from tests.runtime.running import Program, running

PROGRAM = """
    import signal, sys, threading
    import splitpipe as sp

    PAUSE = threading.Event()

    def slow(item):
        PAUSE.wait(0.003)
        return item

    def main():
        signal.alarm(120)  # its own deadline: whoever started it may have been killed
        pipe = sp.Pipeline(range(10**6)).map(slow, workers=2).batch(4, name="four", workers=1)
        with pipe.loader(prefetch=5) as loader:
            for number, batch in enumerate(loader):
                if number == 3:
                    print("running", flush=True)

    if __name__ == "__main__":
        main()
"""


def shown(program: Program) -> list[dict[str, Any]]:
    """What `top` says of one program; others of this user may be running too."""
    done = splitpipe("top", "--json", "--interval", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)["pipelines"]
    return [one for one in found if one["pid"] == program.process.pid]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="found through /proc")
class TestTop:
    def test_shows_what_runs_and_forgets_what_is_gone(self, tmp_path: Path) -> None:
        with running(tmp_path, PROGRAM) as program:
            assert program.first_line() == "running"
            (one,) = shown(program)
            assert one["title"].endswith("main.py")
            assert one["options"]["prefetch"] == 5
            slow, four, consumer = one["tasks"]
            assert (slow["name"], slow["workers"]) == ("slow", 2)
            assert (four["name"], four["reads"]) == ("four", [0])
            assert (consumer["name"], consumer["workers"]) == ("consumer", 0)
            assert slow["items_out"] > 0
            assert 0 < slow["elapsed_s"] < 30
            assert slow["busy_s"] > 0
            assert slow["rss_nbytes"] > 1 << 20
            assert one["diagnosis"]["text"]

            done = splitpipe("top", "--once")
            assert (done.returncode, done.stderr) == (0, "")
            assert "main.py" in done.stdout
            for name in ("slow", "four", "consumer", "prefetch 5"):
                assert name in done.stdout

            family = program.family()
            program.kill(signal.SIGKILL)
            program.assert_nothing_left(family)
            assert shown(program) == []

    def test_shows_itself_anew_until_ctrl_c(self, tmp_path: Path) -> None:
        with running(tmp_path, PROGRAM) as program:
            program.first_line()
            with subprocess.Popen(
                arguments("top", "-i", "0.1"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**environment(), "TERM": "xterm", "FORCE_COLOR": "1"},
            ) as top:
                assert top.stdout is not None
                seen = ""
                while seen.count("main.py") < 3:
                    seen += os.read(top.stdout.fileno(), 1 << 16).decode(errors="replace")
                top.send_signal(signal.SIGINT)
                _, errors = top.communicate(timeout=120)
        assert top.returncode == 130
        assert "Traceback" not in errors


def test_a_bar_is_as_wide_as_it_is_whatever_was_counted() -> None:
    """Counters of workers that are being replaced do not fit together for a moment."""
    from splitpipe.cli.top import BAR, _bar
    from splitpipe.runtime.statistics import TaskStatistics

    for waited_s in (-3.0, 0.0, 5.0, 1e9):
        task = TaskStatistics("f", 1, 9, 9, 0, 0.0, waited_s, -waited_s, 0, 1, elapsed_s=1.0)
        assert _bar(task).plain[:BAR].strip("█░· ") == ""
        assert len(_bar(task)) < 10 * BAR


def test_of_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from splitpipe.cli import top

    monkeypatch.setattr(top, "boards", list)
    top.top(interval=0.1, once=True)
    assert "No pipeline" in capsys.readouterr().out


def test_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    import splitpipe as sp
    from splitpipe.runtime.board import boards

    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(sp.PipelineError, match="only Linux"):
        boards()
