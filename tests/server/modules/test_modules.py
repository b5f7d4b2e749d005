"""Modules: what a folder has, what is wrong with it, and that it stays what it was."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from splitpipe.errors import Conflict, InvalidRequest, NotFound
from splitpipe.server.modules.apart import ChildFailed, ask
from splitpipe.server.modules.finding import INDEX, find
from splitpipe.server.modules.registry import Modules

HEAD = "from splitpipe.server.modules import categorizer, collater, filter, preprocessor\n"


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for stem, text in files.items():
        (folder / f"{stem}.py").write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    return folder


def loaded(tmp_path: Path, *, file_s: float = 30.0, **files: str) -> Modules:
    modules = Modules(write(tmp_path / "modules", **files), tmp_path / "kept", file_s=file_s)
    modules.load()
    return modules


def names(modules: Modules) -> list[tuple[str, str]]:
    return [(one["kind"], one["name"]) for one in modules.listing()]


class TestListing:
    def test_tells_functions_and_classes_with_their_parameters(self, tmp_path: Path) -> None:
        modules = loaded(
            tmp_path,
            ours='''
            from typing import Literal

            @filter
            def long_enough(sample, *, least: int = 10, unit: Literal["words", "chars"] = "words"):
                """Texts of some length.

                Those without a text are left out.

                Args:
                    least: how long, in
                        words or letters.
                    unit: what is counted.
                """
                return True

            @collater(name="pad.to-length")
            class Pad:
                """Pads.

                Args:
                    value: of the padding.
                """
                def __init__(self, value: float) -> None:
                    self.value = value
                def __call__(self, samples):
                    return samples
            ''',
        )
        assert modules.errors == ()
        first, second = modules.listing()
        assert (first["kind"], first["name"], first["file"]) == ("filter", "long_enough", "ours.py")
        assert first["doc"] == "Texts of some length.\n\nThose without a text are left out."
        least, unit = first["parameters"]
        assert least["type"] == "int"
        assert (least["default"], least["required"]) == (10, False)
        assert least["doc"] == "how long, in words or letters."
        assert (unit["type"], unit["choices"]) == ("choice", ["words", "chars"])
        assert (second["name"], second["doc"]) == ("pad.to-length", "Pads.")
        assert second["parameters"][0]["required"]
        assert second["parameters"][0]["doc"] == "of the padding."
        assert modules.listing("collater") == [second]
        assert modules.list()["generation"] == modules.generation
        json.dumps(modules.list())

    def test_no_folder_has_none(self, tmp_path: Path) -> None:
        for folder in (None, tmp_path / "absent"):
            modules = Modules(folder, tmp_path / "kept")
            modules.load()
            assert (names(modules), modules.generation) == ([], None)
            assert modules.path_of(None) is None

    def test_what_is_imported_is_not_defined_there(self, tmp_path: Path) -> None:
        modules = loaded(
            tmp_path,
            a="@filter\ndef one(sample): return True",
            b="from .a import one\nfrom ._help import x\n@filter\ndef two(sample): return x",
            _help="x = 3\n@filter\ndef hidden(sample): return True",
        )
        assert modules.errors == ()
        assert names(modules) == [("filter", "one"), ("filter", "two")]

    def test_the_server_imports_nothing(self, tmp_path: Path) -> None:
        mark = tmp_path / "ran"
        modules = loaded(
            tmp_path,
            never_imported=f"""
            import os, pathlib
            pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))
            @filter
            def one(sample): return True
            """,
        )
        assert names(modules) == [("filter", "one")]
        assert mark.read_text() != str(os.getpid())
        assert not [name for name in sys.modules if name.endswith("never_imported")]


class TestWhatIsWrong:
    def test_one_file_does_not_break_the_others(self, tmp_path: Path) -> None:
        modules = loaded(
            tmp_path,
            a="@filter\ndef one(sample): return True",
            b="import no_such_package",
            c="raise SystemExit(3)",
            d="import os\nprint('my last words', flush=True)\nos._exit(7)",
            e="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
            f="def broken(:\n",
            g="@filter\ndef two(sample): return True",
            h="import sys\nsys.stdout.write('{\"no\": answer}\\n')\nprint(1)",
        )
        assert names(modules) == [("filter", "one"), ("filter", "two")]
        found = {error["file"]: error for error in modules.errors}
        assert sorted(found) == ["b.py", "c.py", "d.py", "e.py", "f.py"]
        assert "no_such_package" in found["b.py"]["error"]
        assert 'b.py", line' in found["b.py"]["traceback"]
        assert found["c.py"]["error"] == "SystemExit: 3"
        assert "status 7" in found["d.py"]["error"]
        assert "my last words" in found["d.py"]["error"]
        assert "SIGSEGV" in found["e.py"]["error"]
        assert "SyntaxError" in found["f.py"]["error"]

    def test_a_file_that_hangs_is_left(self, tmp_path: Path) -> None:
        modules = loaded(
            tmp_path,
            file_s=3.0,
            a="import threading\nthreading.Event().wait()",
            b="@filter\ndef one(sample): return True",
        )
        assert names(modules) == [("filter", "one")]
        assert [error["file"] for error in modules.errors] == ["a.py"]
        assert "said nothing for 3 s" in modules.errors[0]["error"]

    def test_of_two_with_one_name_the_first_counts(self, tmp_path: Path) -> None:
        modules = loaded(
            tmp_path,
            a="@filter\ndef one(sample): return True",
            b="@filter\ndef one(sample): return False\n@categorizer\ndef one2(sample): return 1",
        )
        assert [(one["name"], one["file"]) for one in modules.listing()] == [
            ("one", "a.py"),
            ("one2", "b.py"),
        ]
        assert "already, in a.py line 2" in modules.errors[0]["error"]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("@filter\ndef one(): return True", "takes nothing"),
            ("@filter\ndef one(*, x: int = 1): return True", "must take a sample"),
            ("@filter\ndef one(sample, *rest): return True", "ordinary keywords"),
            ("@filter\ndef one(sample, **rest): return True", "ordinary keywords"),
            ("import re\n@filter\ndef one(s, x: re.Scanner = 1): return True", "cannot be used"),
            ("@filter\ndef one(s, x=object()): return True", "object"),
            ("@filter\nclass One: pass", "can be called"),
            ("@filter(name='two words')\ndef one(s): return True", "cannot be called"),
            ("filter(3)", "not 3"),
        ],
    )
    def test_what_cannot_be_a_module_is_said(self, tmp_path: Path, text: str, said: str) -> None:
        modules = loaded(tmp_path, a=text)
        assert names(modules) == []
        assert said in modules.errors[0]["error"]


class TestGenerations:
    def test_editing_changes_nothing_before_a_reload(self, tmp_path: Path) -> None:
        modules = loaded(tmp_path, a="@filter\ndef one(sample): return 1")
        first = modules.generation
        write(tmp_path / "modules", a="@filter\ndef other(sample): return 2")
        assert names(modules) == [("filter", "one")]
        modules.reload()
        assert names(modules) == [("filter", "other")]
        assert modules.generation != first
        kept = modules.path_of(first)
        assert find(kept, "filter", "one", {})("x") == 1
        assert find(modules.path_of(modules.generation), "filter", "other", {})("x") == 2
        assert find(kept, "filter", "one", {})("x") == 1

    def test_equal_files_are_one_generation(self, tmp_path: Path) -> None:
        modules = loaded(tmp_path, a="@filter\ndef one(sample): return 1")
        first = modules.generation
        (tmp_path / "modules" / "__pycache__").mkdir()
        (tmp_path / "modules" / "__pycache__" / "a.pyc").write_bytes(b"x")
        (tmp_path / "modules" / ".a.py.swp").write_bytes(b"x")
        modules.reload()
        assert modules.generation == first
        (tmp_path / "modules" / "words.txt").write_text("data of a module")
        modules.reload()
        assert modules.generation != first

    def test_what_is_known_is_not_asked_for_again_at_a_start(self, tmp_path: Path) -> None:
        count = tmp_path / "count"
        text = f"""
            with open({str(count)!r}, "a") as file:
                file.write("x")
            @filter
            def one(sample): return True
        """
        loaded(tmp_path, a=text)
        assert names(loaded(tmp_path, a=text)) == [("filter", "one")]
        assert count.read_text() == "x"
        loaded(tmp_path, a=text).reload()
        assert count.read_text() == "xx"

    def test_files_that_were_changed_are_refused(self, tmp_path: Path) -> None:
        modules = loaded(tmp_path, a="@filter\ndef one(sample): return 1")
        kept = modules.path_of(modules.generation)
        assert kept is not None
        (kept / "a.py").write_text("evil = True")
        with pytest.raises(Conflict, match="were changed"):
            modules.path_of(modules.generation)

    def test_what_nobody_uses_is_removed(self, tmp_path: Path) -> None:
        modules = loaded(tmp_path, a="@filter\ndef one(sample): return 1")
        first = modules.generation
        write(tmp_path / "modules", a="@filter\ndef one(sample): return 2")
        modules.reload()
        second = modules.generation
        write(tmp_path / "modules", a="@filter\ndef one(sample): return 3")
        modules.reload()
        assert first is not None
        modules.prune([first])
        assert modules.path_of(first) is not None
        assert modules.path_of(modules.generation) is not None
        with pytest.raises(NotFound, match="not kept any more"):
            modules.path_of(second)

    @pytest.mark.parametrize("name", ["../modules", "", "x" * 32, "0" * 31, "/etc"])
    def test_nothing_else_is_a_generation(self, tmp_path: Path, name: str) -> None:
        modules = loaded(tmp_path, a="x = 1")
        with pytest.raises(NotFound):
            modules.path_of(name)

    def test_a_folder_of_data_is_refused(self, tmp_path: Path) -> None:
        modules = loaded(tmp_path, a="@filter\ndef one(sample): return 1")
        with (tmp_path / "modules" / "weights.bin").open("wb") as file:
            file.truncate(1 << 30)
        with pytest.raises(InvalidRequest, match="more than a modules folder may have"):
            modules.reload()
        assert names(modules) == [("filter", "one")]


class TestFinding:
    def test_names_what_is_not_there(self, tmp_path: Path) -> None:
        modules = loaded(tmp_path, a="@filter\ndef one(sample): return 1", b="import nowhere")
        modules.check("filter", "one", {})
        with pytest.raises(NotFound, match=r"no filter 'two'; there are: one; b\.py could not"):
            modules.check("filter", "two", {})
        with pytest.raises(NotFound, match="no collater 'one'; there are: none"):
            modules.check("collater", "one", {})
        with pytest.raises(NotFound, match="no filter 'two'"):
            find(modules.path_of(modules.generation), "filter", "two", {})
        with pytest.raises(NotFound, match="no modules folder"):
            find(None, "filter", "one", {})

    def test_finds_without_a_description(self, tmp_path: Path) -> None:
        folder = write(
            tmp_path / "plain", a="import nowhere", b="@filter\ndef one(s, *, x: int): return x"
        )
        assert not (folder / INDEX).exists()
        assert find(folder, "filter", "one", {"x": 3})("s") == 3

    def test_a_class_is_made_once(self, tmp_path: Path) -> None:
        folder = write(
            tmp_path / "plain",
            b="""
            made = []
            @filter
            class One:
                def __init__(self, x: int = 2) -> None:
                    made.append(self)
                    self.x = x
                def __call__(self, sample):
                    return len(made), self.x
            """,
        )
        call = find(folder, "filter", "One", {"x": 5})
        assert (call("s"), call("s")) == ((1, 5), (1, 5))


class TestApart:
    def test_a_child_that_is_not_there_fails(self) -> None:
        with pytest.raises(ChildFailed, match="status 1"):
            list(ask("splitpipe.no_such_module", {}, silence_s=20))

    def test_leaving_early_ends_it(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "m", a="x = 1", b="import threading\nthreading.Event().wait()")
        request = {"folder": str(folder), "stems": ["a", "b"]}
        asked = ask("splitpipe.server.modules.describing", request, silence_s=30)
        assert next(asked)["stem"] == "a"
        asked.close()
        assert threading.active_count() == 1
