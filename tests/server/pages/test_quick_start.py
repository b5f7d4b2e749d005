"""The quick start, from an empty server to the end of an iteration, in a browser."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import splitpipe as sp
from tests.server.pages.browsing import watching
from tests.server.pages.data import place_modules
from tests.server.serving import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RECORDS = 400


@pytest.mark.deadline(180)
def test_from_nothing_to_the_last_batch(browser: Browser, served: Served, tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    scores.mkdir()
    with (scores / "all.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["score"])
        table.writerows([number / 10] for number in range(RECORDS))
    place_modules(served.root)

    with watching(browser, served.url) as web, sp.connect(served.url) as client:
        page = web.page
        # A dataset, made in the page.
        web.go("/")
        web.see("No dataset yet.")
        page.get_by_label("Name", exact=True).fill("news")
        web.press("Create dataset")
        web.see("The dataset is there.")
        assert web.path == "/datasets/news"

        # Its first column set, written by a program.
        with client.writer("news", "main") as writer:
            writer.write_many(
                {"text": "a" * (number % 8), "label": number} for number in range(RECORDS)
            )
        page.locator("#live").get_by_text("ready").wait_for()

        # Another one beside it, which lies in a folder already.
        page.reload()
        page.get_by_label("Name", exact=True).fill("scores")
        page.get_by_label("Format").select_option("csv")
        page.get_by_label("Location").fill(str(scores))
        web.press("Add column set")
        web.see("The column set is added.")
        assert page.locator("th", has_text=re.compile("^score$")).count() == 1

        # A filter of one's own.
        web.go("/modules")
        web.press("Reload")
        web.see("The modules are loaded anew.")
        web.see("long_enough")

        # An iteration, tried before it is started.
        web.go("/datasets/news")
        web.press("Iterate")
        page.evaluate("window.still = true")
        page.get_by_label("Batch size").fill("10")
        page.locator("#filters-new").select_option("long_enough")
        page.locator("#filters-add").click()
        least = page.get_by_label("least")
        least.fill("4")
        web.press("Try on")
        tried = page.locator("#tried")
        tried.wait_for()
        assert "aaaa" in tried.inner_text()
        page.wait_for_function("document.activeElement.id === 'tried'")
        assert page.evaluate("window.still"), "the form was sent by leaving the page"
        assert least.input_value() == "4"
        page.get_by_label("Id", exact=True).fill("run-1")
        web.press("Update")
        page.locator("#snippet", has_text="run-1").wait_for()
        snippet = page.locator("#snippet").inner_text() + "\n"
        assert "long_enough" in snippet
        web.press("Start iteration")
        page.wait_for_url("**/iterations/*")
        web.see("0 samples completed")

        # Read by a program, followed in the page, which is never loaded again.
        page.evaluate("window.still = true")
        kept = sum(1 for number in range(RECORDS) if number % 8 >= 4)
        iteration = page.url.rpartition("/")[2].partition("?")[0]
        seen = []
        with client.follow(iteration) as loader:
            for batch in loader:
                seen += [int(label) for label in batch["label"]]
                if len(seen) == 50:
                    page.locator("#now-completed", has_text=re.compile("[1-9]")).wait_for()
                    page.locator("#live", has_text="running").wait_for()
        assert seen == [number for number in range(RECORDS) if number % 8 >= 4]
        page.locator("#now-completed", has_text=re.compile(f"^{kept}$")).wait_for()
        page.locator("#now-filtered", has_text=re.compile(f"^{RECORDS - kept}$")).wait_for()
        page.locator("#live .badge", has_text="done").wait_for()
        assert page.locator("#now-failed").inner_text() == "0"
        assert page.locator("#now-in-progress").inner_text() == "0"
        assert page.evaluate("window.still")

        # What the page shows as the program is one.
        told: dict[str, list[int]] = {"labels": []}
        program = snippet.replace('id="run-1"', 'id="run-2"').replace("  ...\n", "  step(batch)\n")
        assert program.count("step(batch)") == 1
        scope = {"step": lambda batch: told["labels"].extend(map(int, batch["label"]))}
        exec(compile(program, "snippet", "exec"), scope)
        scope["client"].close()
        assert told["labels"] == seen
