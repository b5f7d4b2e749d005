"""The drawing of a run: valid JSON in every case, and never larger than allowed."""

from __future__ import annotations

import json
import os
import threading
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from splitpipe.errors import StorageError
from splitpipe.pipeline.trace_file import TraceFile
from splitpipe.runtime import board as b
from splitpipe.runtime.board import Heading, TaskHead
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.observer import Observer
from splitpipe.runtime.trace import FLUSH_EVENTS, Trace

HEADING = Heading(
    (TaskHead("decode", 1), TaskHead("consumer", 1, (), (0,), executor="consumer")),
    pid=os.getpid(),
)


def events(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


class TestFile:
    def test_spans_counters_and_names(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.json"
        trace = Trace(str(path), 2)
        recorder = trace.link.recorder("worker 1 of decode", 5)
        recorder.span("work", 1.0, 1.5, 8)
        recorder.span("too short to be seen", 1.0, 1.000001, 0)
        recorder.counter("queued", 1.25, {"messages": 3})
        recorder.flush()
        trace.close()
        trace.close()
        process, thread, span, counter, _ = events(path)
        assert process["args"] == thread["args"] == {"name": "worker 1 of decode"}
        assert (span["ph"], span["ts"], span["dur"]) == ("X", 1e6, 5e5)
        assert (span["name"], span["args"]) == ("work", {"items": 8})
        assert (counter["ph"], counter["args"]) == ("C", {"messages": 3})
        for event in (process, thread, span, counter):
            assert (event["pid"], event["tid"]) == (os.getpid(), 5)

    def test_of_nothing_is_valid(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.json"
        Trace(str(path), 1).close()
        assert len(events(path)) == 1

    def test_an_older_one_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.json"
        path.write_text("something long that was here before" * 100)
        Trace(str(path), 1).close()
        assert len(events(path)) == 1

    @pytest.mark.parametrize("torn", [b'{"name": "wo', b'{"name": "work"}', b"},\n", b"\xff\n"])
    def test_what_a_killed_worker_left_is_left_out(self, tmp_path: Path, torn: bytes) -> None:
        path = tmp_path / "trace.json"
        trace = Trace(str(path), 2)
        first, second = (trace.link.recorder("decode", n) for n in range(2))
        first.flush()
        with path.open("ab") as file:
            file.write(torn)
        second.flush()
        second.span("work", 1.0, 2.0, 1)
        second.flush()
        trace.close()
        names = [event["name"] for event in events(path)]
        assert names.count("process_name") >= 1
        assert "work" in names

    def test_stays_below_its_limit_and_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.json"
        limit = 100_000
        trace = Trace(str(path), 2, limit=limit)
        recorders = [trace.link.recorder("decode", n) for n in range(2)]
        for number in range(5 * FLUSH_EVENTS):
            for recorder in recorders:
                recorder.span("work", number, number + 0.5, 1)
        for recorder in recorders:
            recorder.flush()
        trace.close()
        assert path.stat().st_size < limit + 1000
        names = [event["name"] for event in events(path)]
        assert names.count("the trace has reached its limit") == 2

    def test_writers_side_by_side(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.json"
        trace = Trace(str(path), 4)

        def draw(number: int) -> None:
            recorder = trace.link.recorder("decode", number)
            for event in range(1000):
                recorder.span("work", event, event + 0.5, event)
            recorder.flush()

        threads = [threading.Thread(target=draw, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        trace.close()
        spans = [(e["tid"], e["args"]["items"]) for e in events(path) if e["ph"] == "X"]
        assert sorted(spans) == [(n, event) for n in range(4) for event in range(1000)]

    def test_where_nobody_may_write(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="trace cannot be written"):
            Trace(str(tmp_path / "nowhere" / "trace.json"), 1)

    def test_a_full_disk_ends_the_drawing_alone(self, tmp_path: Path) -> None:
        if not os.path.exists("/dev/full"):
            pytest.skip("a device that is always full is Linux's")
        trace = Trace(str(tmp_path / "trace.json"), 1)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, trace.link._file.fd)
        os.close(full)
        recorder = trace.link.recorder("decode", 0)
        recorder.flush()
        recorder.span("work", 0.0, 1.0, 1)
        recorder.flush()
        trace.close()
        assert (tmp_path / "trace.json").read_text() == "[\n"  # as much as there was room for


class TestRun:
    def test_waits_and_work_of_a_meter(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.json"
        observer = Observer(HEADING, trace=TraceFile(path))
        assert observer.trace is not None
        meter = Meter(observer.rows[0])
        meter.recorder = observer.trace.recorder("decode", 0)
        for state in (b.WAITS_FOR_INPUT, b.WAITS_FOR_OUTPUT, b.WAITS_FOR_MEMORY):
            meter.wait(state)
            threading.Event().wait(0.001)  # so that there is something to draw
            meter.resume()
            threading.Event().wait(0.001)
            meter.items_out += 7
            meter.units_out += 1
            meter.publish()
        meter.finish()
        observer.meters[0].take()
        observer.close()
        spans = [event for event in events(path) if event["ph"] == "X" and event["tid"] == 0]
        names = [name for name, _ in groupby(span["name"] for span in spans)]
        assert names[names.index("wait for input") :][:6] == [
            *("wait for input", "work"),
            *("wait for output", "work"),
            *("wait for memory", "work"),
        ]
        assert sum(span["args"]["items"] for span in spans if span["name"] == "work") == 21
        ends = [span["ts"] + span["dur"] for span in spans]
        assert all(a <= b["ts"] + 0.2 for a, b in zip(ends, spans[1:], strict=False))
        counters = [event for event in events(path) if event["ph"] == "C"]
        assert counters[0]["name"] == "queued: decode"
        assert counters[0]["args"] == {"messages": 2}  # one was taken
