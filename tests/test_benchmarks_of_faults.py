"""The chaos, soak and crash runners: they run, they see what they are for, they judge rightly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import chaos, crashes, soak
from benchmarks.chaotic import consumers, peers, workers
from benchmarks.chaotic.cells import Outcome
from benchmarks.chaotic.report import Report
from benchmarks.chaotic.rows import AT, COUNT, ROWS
from benchmarks.soak import Record, Sample, judge, slope
from splitpipe.testing.faults import FaultLog

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.deadline(120)


def run(module: str, *arguments: str) -> tuple[int, str]:
    """Run a runner in a process of its own: it adopts orphans, and ends what it finds."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


class TestChaos:
    @pytest.mark.long
    def test_of_consumers(self) -> None:
        status, text = run("chaos", "--consumer", "--kills", "3", "--seed", "1")
        assert status == chaos.PASSED, text
        assert "programs: 3" in text
        assert "left behind: 0; foreign names touched: 0" in text
        assert text.strip().endswith("PASSED")

    @pytest.mark.long
    def test_of_workers(self) -> None:
        status, text = run("chaos", "--kills", "3", "--records", "15000", "--seed", "1")
        assert status == chaos.PASSED, text
        assert "kills: 3, hangs: 0" in text
        assert "another stream" not in text

    def test_what_is_left_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(consumers, "adopt_orphans", lambda: None)
        monkeypatch.setattr(consumers, "_one", lambda *_: (["socket 5"], 1.0))
        report = consumers.consumer_chaos(kills=2, minutes=None, seed=0)
        assert not report.passed
        assert len(report.faults) == 2
        assert "socket 5" in report.faults[0]

    def test_the_stream_of_the_pipeline_depends_on_every_record(self, tmp_path: Path) -> None:
        pipe = workers.stream(tmp_path, 500, 1, 3)
        whole = [batch.tobytes() for batch in pipe]
        assert whole == [batch.tobytes() for batch in workers.stream(tmp_path, 500, 2, 3)]
        other = [batch.tobytes() for batch in workers.stream(tmp_path, 500, 1, 4)]
        assert len(whole) > 6
        assert whole != other
        assert FaultLog(tmp_path / "first").incidents()

    def test_times_are_counted_from_a_death_to_what_follows_it(self) -> None:
        struck = [10.0, 20.0, 30.0]
        assert workers._after(struck, [10.5, 10.7, 31.0]) == [0.5, 1.0]
        arrived = [9.0, 10.25, 12.0, 12.5, 19.0, 20.125, 30.0, 30.5]
        assert workers._gaps(struck, arrived) == [6.5, 9.875, 0.5]


class TestSoak:
    def test_a_short_one_runs_and_says_that_it_is_short(self) -> None:
        status, text = run("soak", "--minutes", "0.05")
        assert status == 2, text
        assert "TOO SHORT" in text
        assert "MiB/h" in text

    @staticmethod
    def samples(**growing: float) -> list[Sample]:
        made = []
        for number in range(100):
            values: dict[str, float] = {"memory_mib": 100.0, "shared_mib": 60.0}
            values |= {"descriptors": 9, "threads": 8, "segments": 7, "processes": 4}
            for name, rate in growing.items():
                values[name] += type(values[name])(rate * number)
            made.append(Sample(10.0 * number, **values))  # type: ignore[arg-type]
        return made

    def test_a_record_that_is_full_keeps_every_other_sample(self) -> None:
        record, samples = Record(16), self.samples()
        for one in samples:
            record.add(one)
        assert record.samples() == samples[::8]

    def test_what_does_not_grow_passes(self) -> None:
        assert judge(self.samples(), 1.0).passed

    @pytest.mark.parametrize(
        ("name", "rate"),
        [
            ("memory_mib", 0.05),
            ("shared_mib", 0.05),
            ("descriptors", 0.5),
            ("threads", 0.5),
            ("segments", 0.5),
            ("processes", 0.5),
        ],
    )
    def test_what_grows_fails(self, name: str, rate: float) -> None:
        report = judge(self.samples(**{name: rate}), 1.0)
        assert not report.passed
        assert len(report.faults) == 1

    def test_one_step_of_an_allocator_is_no_growth_and_four_are(self) -> None:
        for steps, passed in ((1, True), (4, False)):
            samples = [
                Sample(one.at_s, 100.0 + steps * (number >= 75), 60.0, 9, 8, 7, 4)
                for number, one in enumerate(self.samples())
            ]
            report = judge(samples, 1.0)
            assert report.passed is passed, report
            assert "would not be seen" in report.lines[0]

    def test_slots_that_are_written_late_are_no_growth(self) -> None:
        assert judge(self.samples(shared_mib=0.03), 1.0).passed

    def test_what_is_taken_in_the_first_half_is_warming_up(self) -> None:
        samples = [
            Sample(one.at_s, 100.0 + min(number, 50), 60.0, 9, 8, 7, 4)
            for number, one in enumerate(self.samples())
        ]
        assert judge(samples, 1.0).passed

    def test_noise_is_no_growth(self) -> None:
        samples = self.samples()
        noisy = [
            Sample(one.at_s, 100.0 + (number * 37 % 11), 60.0, 9, 8, 7, 4)
            for number, one in enumerate(samples)
        ]
        assert judge(noisy, 1.0).passed

    def test_a_slope_is_per_hour(self) -> None:
        assert slope([0, 60, 120], [5.0, 6.0, 7.0]) == (60.0, 0.0)

    def test_the_pipeline_gives_what_is_counted(self) -> None:
        pipe = soak.pipelines()
        first = next(iter(pipe))
        assert len(first[0][0]) == 256
        assert first[1].shape == (30_000,)


@pytest.mark.long
class TestCrashes:
    def test_a_few_cells_and_the_page(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(f"above\n{crashes.BEGIN}\nold\n{crashes.END}\nbelow\n")
        results = tmp_path / "results.json"
        chosen = ["--json", str(results), "--limit", "3", "--markdown", str(page)]
        chosen += ["--system", "splitpipe", "--system", "pool"]
        for row in ("raise", "os._exit", "consumer stop", "interrupt"):
            chosen += ["--row", row]
        status, text = run("crashes", *chosen)
        assert status == 0, text
        cells = json.loads(results.read_text())
        for system in ("splitpipe", "pool"):
            told = Outcome(**cells["raise"][system])
            assert told.error == "ValueError"
            assert told.items == list(range(AT))
            assert told.left == []
        assert Outcome(**cells["os._exit"]["pool"]).hangs
        assert not Outcome(**cells["os._exit"]["splitpipe"]).hangs
        assert Outcome(**cells["consumer stop"]["splitpipe"]).left == []
        # Heard wherever this was started: a shell's background jobs ignore it.
        assert Outcome(**cells["interrupt"]["splitpipe"]).status == -signal.SIGINT
        written = page.read_text()
        assert written.startswith("above\n")
        assert written.endswith("below\n")
        assert "old" not in written
        assert "| `multiprocessing.Pool` |" in written

    def test_words_for_what_should_not_be_are_bold(self) -> None:
        row = ROWS["kill"]
        short = Outcome(items=list(range(9)), ended=True)
        assert crashes.words(row, short) == f"**ends quietly with 9 of {COUNT} items**"
        lost = Outcome(items=[0, 2, 3], error="E")
        assert "**1 lost before others**" in crashes.words(row, lost)
        left = Outcome(items=[0], error="E", left=["process 1", "process 2", "file x"])
        assert crashes.words(row, left).endswith("**2 processes left**; **1 file left**")
        dead = Outcome(items=[0], status=-7)
        assert "**the whole program ends** (SIGBUS)" in crashes.words(row, dead)
        stuck = Outcome(hangs=True, ctrl_c=False)
        assert "**not even Ctrl-C ends it**" in crashes.words(row, stuck)
        good = Outcome(items=list(range(COUNT)), ended=True)
        assert crashes.words(row, good) == "all items"

    def test_a_system_that_is_not_there_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        title, _, make = peers.SYSTEMS["mpqitr"]
        monkeypatch.setitem(peers.SYSTEMS, "mpqitr", (title, "no_such_module_x", make))
        assert peers.missing("mpqitr") == "not installed"


def test_a_report_passes_as_long_as_nothing_is_wrong() -> None:
    report = Report()
    report.require(True, "right")
    assert report.passed
    report.require(False, "wrong")
    assert report.faults == ["wrong"]
