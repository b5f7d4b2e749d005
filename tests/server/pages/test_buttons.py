"""Every button: what it does, with and without a script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import splitpipe as sp
from tests.server.pages.browsing import Watched, watching
from tests.server.pages.data import EVIL, film, make, place_modules
from tests.server.serving import Served, environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.deadline(120), pytest.mark.long]

SCRIPTS = pytest.mark.parametrize("script", [True, False], ids=["script", "plain"])


def reload_modules(served: Served) -> None:
    place_modules(served.root)
    served.json("POST", "/api/v1/modules/reload")


def over(web: Watched) -> None:
    """Wait until the task of the page that is open is over."""
    web.page.locator("#live .badge", has_text=re.compile("done|failed|aborted")).wait_for()


class TestDatasets:
    @SCRIPTS
    def test_create_and_delete(self, browser: Browser, served: Served, script: bool) -> None:
        with watching(browser, served.url, java_script_enabled=script) as web:
            web.go("/datasets")
            web.page.get_by_label("Name", exact=True).fill("mine")
            web.page.get_by_label("Column that names records").fill("id")
            web.press("Create dataset")
            assert web.path == "/datasets/mine"
            web.see("The dataset is there.")
            web.press("Delete")
            web.press("Keep it")
            assert web.path == "/datasets/mine"
            web.press("Delete")
            web.press("Delete the dataset")
            web.see("The dataset is deleted.")
            assert served.json("GET", "/api/v1/datasets") == []

    def test_a_wrong_one_stays_in_the_form(self, browser: Browser, served: Served) -> None:
        with watching(browser, served.url) as web:
            web.expected.add(400)
            web.go("/datasets")
            web.page.get_by_label("Name", exact=True).fill("no good/name")
            web.press("Create dataset")
            web.page.get_by_role("alert").wait_for()
            assert "no good/name" in web.page.get_by_role("alert").inner_text()
            assert web.page.get_by_label("Name", exact=True).input_value() == "no good/name"

    def test_column_sets(self, browser: Browser, served: Served, tmp_path: Path) -> None:
        folder = tmp_path / "more"
        folder.mkdir()
        (folder / "a.csv").write_text("extra\n1\n2\n3\n")
        make(served, count=3)
        with watching(browser, served.url) as web:
            page = web.page
            web.expected |= {400, 403, 422}
            web.go("/datasets/news")
            page.get_by_label("Name", exact=True).fill("more")
            page.get_by_label("Format").select_option("csv")
            page.get_by_label("Location").fill("/etc")
            web.press("Add column set")
            page.get_by_role("alert").wait_for()
            assert page.get_by_label("Name", exact=True).input_value() == "more"
            page.get_by_label("Location").fill(str(folder))
            page.get_by_label("Columns and types").fill("extra: float64")
            web.press("Add column set")
            web.see("The column set is added.")
            web.see("float64")
            page.get_by_role("button", name="Sync more").click()
            web.see("The sync has started.")
            page.get_by_role("link", name="Remove more").click()
            web.press("Remove the column set")
            web.see("The column set is removed.")
            assert len(served.json("GET", "/api/v1/datasets/news")["column_sets"]) == 1


class TestRecords:
    def test_pages_of_records(self, browser: Browser, served: Served) -> None:
        make(served, count=60)
        with watching(browser, served.url) as web:
            page = web.page
            web.go("/datasets/news/records?limit=25")
            assert "1-25 of 60" in web.text.replace("\N{EN DASH}", "-")
            page.get_by_role("link", name="Next").first.click()
            page.get_by_role("link", name="Last").first.click()
            assert "51-60 of 60" in web.text.replace("\N{EN DASH}", "-")
            page.get_by_role("link", name="Previous").first.click()
            page.get_by_role("link", name="First").first.click()
            assert page.locator("tbody tr").count() == 25
            page.get_by_label("sound", exact=True).uncheck()
            page.get_by_label("From record").fill("10")
            page.get_by_label("Records a page").select_option("10")
            web.press("Show")
            assert page.locator("audio").count() == 0
            assert page.locator("tbody th").first.inner_text() == "10"

    def test_pictures_are_shown_and_sounds_can_be_played(
        self, browser: Browser, served: Served
    ) -> None:
        make(served, count=3)
        with watching(browser, served.url) as web:
            page = web.page
            web.go("/datasets/news/records")
            shown = "all => all.map((one) => one.decode().then(() => one.naturalWidth))"
            page.wait_for_function("() => document.images.length === 3")
            loaded = f"() => Promise.all(({shown})([...document.images]))"
            assert page.evaluate(loaded) == [16, 16, 16]
            sound = page.locator("audio").first
            length = sound.evaluate(
                "one => new Promise((done, failed) => {"
                " one.addEventListener('loadedmetadata', () => done(one.duration));"
                " one.addEventListener('error', () => failed(one.error.message)); one.load(); })"
            )
            assert length == pytest.approx(0.2, abs=0.05)

    def test_films_are_played(self, browser: Browser, served: Served) -> None:
        pytest.importorskip("av", reason="films are made by PyAV")
        with sp.connect(served.url) as client:
            client.datasets.create("films")
            with client.writer("films", "main", columns={"film": "video"}) as writer:
                writer.write_many([{"film": film()}])
        with watching(browser, served.url) as web:
            web.go("/datasets/films/records")
            web.page.locator("video").evaluate(
                "one => { one.muted = true; one.load(); return one.play(); }"
            )
            web.page.wait_for_function(
                "() => { const one = document.querySelector('video');"
                " return one.currentTime > 0.2 && one.videoWidth === 32; }"
            )

    def test_what_is_in_a_record_is_text(self, browser: Browser, served: Served) -> None:
        make(served, count=3)
        with watching(browser, served.url) as web:
            web.go("/datasets/news/records")
            assert EVIL in web.page.locator("td", has_text="alert").inner_text()
            assert web.page.locator("main script").count() == 0
            assert web.page.locator("main img[src='/nothing']").count() == 0

    def test_check(self, browser: Browser, served: Served) -> None:
        make(served, count=3)
        with watching(browser, served.url) as web:
            web.go("/datasets/news")
            web.press("Check")
            web.see("Every value is being read.")
            over(web)
            assert "unreadable" in web.text

    def test_statistics(self, browser: Browser, served: Served) -> None:
        make(served, count=60)
        with watching(browser, served.url) as web:
            web.go("/datasets/news/statistics")
            web.press("Count")
            over(web)
            web.go("/datasets/news/statistics")
            box = web.page.locator("section.box", has_text="label")
            assert "29.5" in box.inner_text()
            assert box.locator("svg.histogram rect").count() > 3

    @SCRIPTS
    def test_preprocess(self, browser: Browser, served: Served, script: bool) -> None:
        reload_modules(served)
        make(served, count=20)
        with watching(browser, served.url, java_script_enabled=script) as web:
            page = web.page
            web.expected.add(400)
            web.go("/datasets/news/preprocess")
            page.get_by_label("Name of the new column set").fill("loud")
            page.get_by_label("Records a batch").fill("5")
            page.locator("#preprocessors-new").select_option("shout")
            page.locator("#preprocessors-add").click()
            page.get_by_label("mark").fill("?")
            web.press("Start")
            page.wait_for_url("**/tasks/*")
            identity = page.url.rpartition("/")[2].partition("?")[0]
        with sp.connect(served.url) as client:
            client.tasks.wait(identity)
            shown = client.datasets.preview("news", limit=1, columns=["loud"])
            assert shown["rows"][0]["values"] == {"loud": "word ?"}


class TestIterations:
    @SCRIPTS
    def test_the_form(self, browser: Browser, served: Served, script: bool) -> None:
        reload_modules(served)
        make(served, count=20)
        make(served, "other", count=3)
        with watching(browser, served.url, java_script_enabled=script) as web:
            page = web.page
            web.expected.add(400)
            web.go("/iterate?dataset=news")
            for name in ("long_enough", "even"):
                page.locator("#filters-new").select_option(name)
                page.locator("#filters-add").click()
                page.locator(".module-row", has_text=name).wait_for()
            assert names(web) == ["long_enough", "even"]
            page.get_by_label("least").fill("7")
            page.get_by_role("button", name="Up even").click()
            page.locator(".module-row >> nth=0").filter(has_text="even").wait_for()
            assert names(web) == ["even", "long_enough"]
            assert page.get_by_label("least").input_value() == "7"
            page.get_by_role("button", name="Down even").click()
            page.locator(".module-row >> nth=1").filter(has_text="even").wait_for()
            page.get_by_role("button", name="Remove even").click()
            page.locator(".module-row", has_text="even").wait_for(state="detached")
            assert names(web) == ["long_enough"]
            page.get_by_label("yes").check()
            page.get_by_label("label", exact=True).check()
            page.get_by_label("text", exact=True).check()
            page.get_by_label("Seed").fill("1.5")
            page.locator("form#builder").evaluate("form => (form.noValidate = true)")
            page.locator("#do-start").click()
            web.see("Something in the form is not right")
            assert page.get_by_label("Seed").get_attribute("aria-invalid") == "true"
            page.get_by_label("Seed").fill("3")
            page.get_by_label("Batch size").fill("4")
            web.press("Start iteration")
            page.wait_for_url("**/iterations/*")
            (made,) = served.json("GET", "/api/v1/iterations")
            spec = made["spec"]
            assert spec["filters"] == [
                {"name": "long_enough", "params": {"least": 7, "strict": True}}
            ]
            assert (spec["columns"], spec["seed"]) == (["text", "label"], 3)
            # Another like it has the same in its form.
            web.press("Make another like it")
            assert page.get_by_label("least").input_value() == "7"
            assert page.get_by_label("Seed").input_value() == "3"

    def test_another_dataset_has_other_columns(self, browser: Browser, served: Served) -> None:
        make(served, count=3)
        with sp.connect(served.url) as client:
            client.datasets.create("other")
            with client.writer("other", "main") as writer:
                writer.write({"number": 1})
        with watching(browser, served.url) as web:
            web.go("/iterate?dataset=news")
            web.page.get_by_label("Dataset").select_option("other")
            web.page.get_by_label("number", exact=True).wait_for()
            assert web.page.get_by_label("picture", exact=True).count() == 0

    def test_a_filter_that_fails_is_said(self, browser: Browser, served: Served) -> None:
        make(served, count=3)
        (served.root / "modules" / "bad.py").write_text(
            "from splitpipe.server.modules import filter\n\n\n@filter\ndef bad(sample):\n"
            "    raise ValueError('what a day <b>')\n"
        )
        served.json("POST", "/api/v1/modules/reload")
        with watching(browser, served.url) as web:
            web.expected |= {400, 409, 422}
            web.go("/iterate?dataset=news")
            web.page.locator("#filters-add").click()
            web.page.locator(".module-row").wait_for()
            web.press("Try on")
            web.see("what a day <b>")

    def test_push_back_stop_start_and_delete(self, browser: Browser, served: Served) -> None:
        make(served, count=60)
        with sp.connect(served.url) as client, watching(browser, served.url) as web:
            page = web.page
            killed_while_reading(served.url)
            web.go("/iterations")
            web.press("mine")
            # What the dead client had would be held for an hour.
            page.locator("#now-in-progress", has_text=re.compile("[1-9]")).wait_for()
            web.press("Push back")
            web.see("is given back")
            page.locator("#now-in-progress", has_text=re.compile("^0$")).wait_for()
            page.locator("#now-returned", has_text=re.compile("[1-9]")).wait_for()
            web.press("Stop")
            web.see("The iteration is stopped.")
            page.locator("#live .badge", has_text="stopped").wait_for()
            web.press("Start")
            web.see("The iteration is started.")
            with client.follow("mine") as loader:
                left = [int(label) for batch in loader for label in batch["label"]]
            assert left == list(range(60))
            page.locator("#live .badge", has_text="done").wait_for()
            web.press("Delete")
            web.press("Delete the iteration")
            web.see("The iteration is deleted.")
            web.see("No iteration yet.")

    def test_what_is_live_leaves_the_focus_where_it_is(
        self, browser: Browser, served: Served
    ) -> None:
        make(served, count=60)
        with (
            sp.connect(served.url) as client,
            client.iterate("news", batch_size=4, columns=["label"]) as loader,
            watching(browser, served.url) as web,
        ):
            web.go(f"/iterations/{client.iterations.list()[0]['id']}")
            web.page.locator("#do-pushback").focus()
            before = web.page.locator("#now-completed").inner_text()
            for number, _ in enumerate(loader):
                if number == 4:
                    break
            web.page.wait_for_function(
                "before => document.getElementById('now-completed').textContent !== before",
                arg=before,
            )
            assert web.page.evaluate("document.activeElement.id") == "do-pushback"


class TestDesk:
    def test_abort_a_task(self, browser: Browser, served: Served) -> None:
        (served.root / "modules" / "slow.py").write_text(
            "import threading\nfrom splitpipe.server.modules import preprocessor\n\n\n"
            "@preprocessor\ndef slow(batch):\n    threading.Event().wait(60)\n    return batch\n"
        )
        served.json("POST", "/api/v1/modules/reload")
        make(served, count=20)
        body = {"column_set": "slow", "preprocessors": [{"name": "slow", "params": {}}]}
        task = served.json("POST", "/api/v1/datasets/news/preprocess", body=body)
        with watching(browser, served.url) as web:
            web.go("/tasks")
            web.page.get_by_role("link", name="preprocess").click()
            web.page.locator("#live").get_by_role("button", name="Abort").click()
            web.see("The task is told to end.")
            web.go(f"/tasks/{task['id']}")
            over(web)
            web.page.locator("#live .badge", has_text="aborted").wait_for()

    def test_modules_and_what_is_wrong_with_them(self, browser: Browser, served: Served) -> None:
        with watching(browser, served.url) as web:
            web.go("/modules")
            web.see("No module yet.")
            place_modules(served.root)
            (served.root / "modules" / "broken.py").write_text("import nothing_of_this_name\n")
            web.press("Reload")
            web.see("The modules are loaded anew.")
            web.see("nothing_of_this_name")
            box = web.page.locator("article", has_text="long_enough")
            assert "letters at least" in box.inner_text()
            assert re.search(r"strict\s", box.inner_text())
            # The import failed in another process: the server is well.
            web.go("/datasets")

    def test_a_token_is_shown_once(self, browser: Browser, served: Served) -> None:
        with watching(browser, served.url) as web:
            page = web.page
            web.go("/tokens")
            page.get_by_label("Name", exact=True).fill("trainer")
            page.get_by_label("Role").select_option("run")
            page.get_by_label("Ends after days").fill("30")
            web.press("Make token")
            text = page.locator("#made-token").inner_text()
            assert text.startswith("sp_")
            assert text not in page.url
            web.go("/tokens")
            assert text not in page.content()
            page.get_by_role("link", name="Revoke trainer").click()
            web.press("Revoke the token")
            web.see("The token is revoked.")
            assert served.json("GET", "/api/v1/tokens") == []


READER = """
import sys, splitpipe as sp
client = sp.connect(sys.argv[1])
loader = client.iterate("news", batch_size=4, id="mine", columns=["label"], lease_s=3600.0)
print(list(map(int, next(iter(loader))["label"])), flush=True)
sys.stdin.read()
"""


def killed_while_reading(url: str) -> None:
    """Read the first batch of the iteration "mine" in a process that is killed then."""
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, url],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "[0, 1, 2, 3]\n"
        reader.kill()


def names(web: Watched) -> list[str]:
    """The modules of the form, in their order."""
    return [one.strip() for one in web.page.locator(".module-row strong").all_inner_texts()]
