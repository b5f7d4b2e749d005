"""The house: what the project promises about itself, checked on the project itself."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "splitpipe"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_MODULE = 400
LONGEST_FUNCTION = 50
SLEEPER = "time" + ".sleep"


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


class TestMetadata:
    def test_pyproject_holds_the_build_system_alone(self) -> None:
        data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        assert set(data) == {"build-system"}

    def test_version_is_said_once(self) -> None:
        version = setup_cfg()["metadata"]["version"]
        assert run_python("import splitpipe; print(splitpipe.__version__)").strip() == version
        assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    def test_every_python_of_the_classifiers_has_a_tox_environment(self) -> None:
        tox = configparser.ConfigParser()
        tox.read(ROOT / "tox.ini", encoding="utf-8")
        environments = {name.strip() for name in tox["tox"]["env_list"].split(",")}
        pythons = {
            "py" + line.rsplit(" ", 1)[1].replace(".", "")
            for line in setup_cfg()["metadata"]["classifiers"].splitlines()
            if "Python :: 3." in line
        }
        assert pythons
        assert pythons <= environments

    def test_every_reason_stands_beside_its_ignore(self) -> None:
        inside = False
        for line in (ROOT / "ruff.toml").read_text(encoding="utf-8").splitlines():
            inside = inside or line.startswith("ignore = [")
            if inside and line.strip().startswith('"'):
                assert "#" in line, f"ruff.toml: {line.strip()} has no reason"
            inside = inside and line.strip() != "]"


class TestReadme:
    """The two commands that `.ci/run` takes out of the README and runs word for word."""

    def command(self, name: str) -> str:
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        found = re.search(rf"^<!-- {name} -->\n```sh\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
        assert found, f"README.md has no command marked {name}"
        return found[1]

    @pytest.mark.parametrize("name", ["demo", "tests"])
    def test_each_does_all_of_its_own_setting_up(self, name: str) -> None:
        command = self.command(name)
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -e ")

    def test_the_demo_is_the_whole_demo(self) -> None:
        assert self.command("demo").endswith('".[cli]" && .venv/bin/splitpipe demo')

    def test_the_tests_are_all_tests(self) -> None:
        assert self.command("tests").endswith('".[test]" && .venv/bin/python -m tests')

    def test_ci_runs_both(self) -> None:
        script = ROOT / ".ci" / "run"
        assert os.access(script, os.X_OK)
        assert "for name in tests demo; do" in script.read_text(encoding="utf-8")
        subprocess.run(["bash", "-n", str(script)], check=True)


class TestImport:
    def test_loads_nothing_that_a_reader_does_not_need(self) -> None:
        code = (
            "import sys, splitpipe\n"
            "heavy = {'zmq', 'ray', 'torch', 'jax', 'http', 'asyncio', 'typer', 'rich', 'psutil',\n"
            "         'starlette', 'fastapi', 'pyarrow', 'pandas', 'multiprocessing', 'numpy'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        assert run_python(code).strip() == "[]"

    def test_every_public_name_resolves(self) -> None:
        code = (
            "import splitpipe\n"
            "print([n for n in splitpipe.__all__ if getattr(splitpipe, n, None) is None])\n"
            "print(set(splitpipe.__all__) <= set(dir(splitpipe)))"
        )
        assert run_python(code).split("\n")[:2] == ["[]", "True"]

    def test_package_is_typed(self) -> None:
        assert (PACKAGE / "py.typed").exists()


class TestSizes:
    @pytest.mark.parametrize("path", MODULES, ids=name_of)
    def test_module_is_short_and_says_what_it_is_for(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        lines = sum(1 for line in text.splitlines() if line.strip())
        assert lines <= LONGEST_MODULE, f"{name_of(path)} has {lines} lines: find the missing noun"
        assert ast.get_docstring(tree), f"{name_of(path)} does not say what it is responsible for"
        for function in functions(tree):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            assert length <= LONGEST_FUNCTION, (
                f"{name_of(path)}:{function.lineno} {function.name}: {length} lines"
            )


class TestHabits:
    def test_no_test_sleeps(self) -> None:
        for path in sorted((ROOT / "tests").rglob("*.py")):
            for node in calls(path):
                assert ast.unparse(node.func) != SLEEPER, f"{name_of(path)}:{node.lineno} sleeps"

    def test_stored_data_is_never_unpickled(self) -> None:
        rooms = [PACKAGE / "storage", PACKAGE / "dataset.py", PACKAGE / "order.py"]
        for room in rooms:
            for path in [room] if room.is_file() else sorted(room.rglob("*.py")):
                for node in calls(path):
                    called = ast.unparse(node.func)
                    assert not called.endswith(("pickle.load", "pickle.loads")), name_of(path)


class TestHouseRules:
    """The rules of conftest.py, seen from outside: a suite that breaks them must fail."""

    def outcome(self, folder: Path, body: str) -> str:
        rules = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
        impatient = rules.replace("SETTLE_S = 30.0", "SETTLE_S = 0.1").replace(
            "PATIENCE = 5 ", "PATIENCE = 1 "
        )
        assert impatient != rules
        (folder / "conftest.py").write_text(impatient, encoding="utf-8")
        shutil.copy(ROOT / "setup.cfg", folder / "setup.cfg")
        (folder / "test_it.py").write_text(body, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_it.py"]
        # The rules look for leaks with the package itself, which may not be installed.
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        return f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ("import os\ndef test_it():\n    os.pipe()\n", "descriptors: pipe:"),
            (
                "import threading\nkept = threading.Event()\ndef test_it():\n"
                "    threading.Thread(target=kept.wait, daemon=True, name='left').start()\n",
                "threads: left",
            ),
            (
                "import subprocess, sys\nkept = []\ndef test_it():\n"
                "    kept.append(subprocess.Popen(['sleep', '20'], stdin=subprocess.DEVNULL))\n"
                "def test_end():\n    kept[0].kill(); kept[0].wait()\n",
                "children: pid",
            ),
            (
                "import mmap, os\nkept = []\ndef test_it():\n"
                "    fd = os.memfd_create('left'); os.ftruncate(fd, 4096)\n"
                "    kept.append(mmap.mmap(fd, 4096)); os.close(fd)\n",
                "segments: /memfd:left",
            ),
        ],
        ids=["descriptor", "thread", "child", "segment"],
    )
    def test_a_leak_fails(self, tmp_path: Path, body: str, kind: str) -> None:
        text = self.outcome(tmp_path, body)
        assert text.startswith("exit 1")
        assert kind in text

    def test_a_leak_with_a_reason_passes(self, tmp_path: Path) -> None:
        body = (
            "import os, pytest\n@pytest.mark.leaks('on purpose')\ndef test_it():\n    os.pipe()\n"
        )
        assert self.outcome(tmp_path, body).startswith("exit 0")

    def test_a_hang_fails_with_its_stack(self, tmp_path: Path) -> None:
        body = (
            "import threading, pytest\n@pytest.mark.deadline(0.5)\ndef test_it():\n"
            "    waiting_for_godot()\ndef waiting_for_godot():\n    threading.Event().wait()\n"
            "def test_next():\n    assert True\n"
        )
        text = self.outcome(tmp_path, body)
        assert text.startswith("exit 1")
        assert "still running after 0.5 s" in text
        assert "in waiting_for_godot" in text
        assert "1 failed, 1 passed" in text


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node
