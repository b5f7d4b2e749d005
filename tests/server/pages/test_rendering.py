"""Templates, views and charts, without a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from splitpipe.server.pages import access, charts, counted, live, views
from splitpipe.server.pages.rendering import ASSETS, HEADERS, part

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"
ADMIN = access.Who("admin")
TEMPLATES = sorted(ASSETS.with_name("templates").glob("*.html"))


class Tags(HTMLParser):
    """Every tag of a page, with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def status(**more: Any) -> dict[str, Any]:
    return {
        "id": "0123456789abcdef",
        "name": EVIL,
        "dataset": EVIL,
        "status": "running",
        "spec": {},
        "total": 40,
        "created_at": 0.0,
        "error": EVIL,
        "progress": {
            "completed": 320,
            "filtered": 3,
            "in_progress": {"10": 1, "2": 5},
            "batches": {"completed": 10},
            "stages": [
                {"name": EVIL, "busy": 0.5, "waiting_in": 0.75, "waiting_out": float("nan")}
            ],
            "doctor": EVIL,
            "clients": [{"client": EVIL, "rank": 0, "in_progress": 1, "last_seen_s": 0.2}],
            "errors": [{"sequence": 1, "message": EVIL}],
            "cursors": [{"name": EVIL, "next": 1}, {"name": "1", "next": 2}],
        },
        **more,
    }


class TestPlainTemplates:
    @pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
    def test_hold_no_script_no_style_and_no_other_host(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\sstyle=|<style|\son(?!e=)\w+=|javascript:|\|\s*safe|Markup", text)
        assert re.findall(r"<script[^>]*>", text) in (
            [],
            ["<script src=\"{{ asset('page.js') }}\" defer>"],
        )
        assert "://" not in text

    def test_the_policy_lets_nothing_in(self) -> None:
        policy = HEADERS["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy


class TestIteration:
    def test_whatever_comes_from_elsewhere_is_text(self) -> None:
        html = part(ADMIN, "_progress.html", {"it": views.iteration(status())})
        tags = Tags(html).found
        assert not {"script", "img"} & {tag for tag, _ in tags}
        assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
        assert "49" not in html.replace("&#39;", "")

    def test_ranks_are_in_the_order_of_their_numbers(self) -> None:
        told = views.iteration(status())["progress"]
        assert [rank["name"] for rank in told["ranks"]] == ["2", "10"]

    def test_without_any_progress(self) -> None:
        told = views.iteration(status(progress=None, total=None))
        html = part(ADMIN, "_progress.html", {"it": told})
        assert "0 samples completed" in html

    def test_shares_never_exceed_the_whole(self) -> None:
        parts = views.iteration(status())["progress"]["stages"][0]["parts"]
        assert sum(float(one.width) for one in parts) == pytest.approx(100)


class TestRecords:
    def test_every_kind_of_value(self) -> None:
        row = {
            "text": EVIL,
            "number": 1.5,
            "flag": True,
            "nothing": None,
            "image": {"kind": "image", "mime": "image/png", "nbytes": 3},
            "blob": {"kind": "bytes", "mime": "application/octet-stream", "nbytes": 3},
            "list": [1, 2],
            "array": {"kind": "array", "dtype": "int8", "shape": [2, 3], "head": [1, 2]},
            "long": {"kind": "text", "text": EVIL, "length": 5000},
            "large": {"kind": "number", "text": "9" * 20},
            "unknown": {"kind": EVIL},
        }
        told = {"row": 7, "values": row}
        shown = views.cells(row, told, "/api/v1/datasets/a/records")
        kinds = [cell["kind"] for cell in shown[:7]]
        assert kinds == ["text", "number", "number", "none", "image", "bytes", "text"]
        assert [cell["kind"] for cell in shown[7:]] == ["array", "text", "number", "text"]
        assert "5,000" in shown[8]["about"]
        assert shown[4]["url"] == "/api/v1/datasets/a/records/7/image"

    def test_names_are_quoted(self) -> None:
        image = {"kind": "image", "mime": None, "nbytes": 3}
        (cell,) = views.cells(["a/b?c#d"], {"row": 0, "values": {"a/b?c#d": image}}, "/r")
        assert cell["url"] == "/r/0/a%2Fb%3Fc%23d"

    def test_a_record_that_cannot_be_read_says_why(self) -> None:
        (cell,) = views.cells(["a", "b"], {"row": 3, "error": EVIL}, "/r")
        assert cell == {"name": "a", "kind": "error", "text": EVIL}

    def test_long_values_are_cut(self) -> None:
        assert len(views.text_of("x" * 10_000)) < 2100

    @pytest.mark.parametrize(("offset", "total"), [(0, 0), (0, 1), (25, 26), (50, 50), (99, 3)])
    def test_a_pager_stays_inside(self, offset: int, total: int) -> None:
        found = views.paging(offset, 25, total)
        for key in ("first", "previous", "next", "last"):
            assert found[key] is None or 0 <= found[key] <= max(offset, total)


class TestStatistics:
    def test_what_was_not_counted_is_left_out(self) -> None:
        assert counted.columns({}) == []
        (column,) = counted.columns({"columns": [{"name": "a", "count": 3}]})
        assert column["histogram"] is None
        assert column["facts"] == [("Values", "3")]

    def test_a_bar_of_one_can_be_seen_beside_one_of_millions(self) -> None:
        drawn = charts.histogram([1, 10_000_000], [0.0, 1.0, 2.0])
        assert float(drawn.bars[0].height) > 1


class TestWho:
    @pytest.mark.parametrize("role", [None, "read", "run", "admin"])
    def test_a_role_may_what_lower_ones_may(self, role: str | None) -> None:
        may = access.may_of(access.Who(role))
        order = ["read", "run", "admin"]
        allowed = order[: order.index(role) + 1] if role else []
        assert [name for name in order if may[name]] == allowed

    @pytest.mark.parametrize(
        "target",
        [
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil",
            "javascript:x",
            "",
            "///evil.example",
            "/login",
            "/logout",
            "http:/evil",
        ],
    )
    def test_signing_in_leads_nowhere_else(self, target: str) -> None:
        assert access.safe_next(target) == "/datasets"


class TestEvents:
    def test_no_text_ends_an_event_early(self) -> None:
        text = live.event("part", "a\n\nevent: end\r\rdata: b\x0b\u2028c")
        assert text.count("\n\n") == 1
        assert text.endswith("\n\n")
        assert all(line.startswith(("event: part", "data: ")) for line in text[:-2].split("\n"))
