"""What is published, tried as a stranger would: ``python -m tests.release``.

Builds the sdist, and from it a wheel for each Python; installs each in an environment of its own
with core dependencies alone, once at their newest and once at their lowest versions, and runs
``tests/smoke.py`` there. Then once more where no compiler is: the wheel has no kernel, and its twin
in Python does the same. Needs the package `build` and the Pythons it is told of::

    python -m tests.release --python 3.11 --python 3.12 --python 3.13
    python -m tests.release --extras          # the lowest versions of every extra, imported

Responsible for: the environments. What is looked at in them stands in ``tests/smoke.py``.
"""

from __future__ import annotations

import argparse
import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["lowest", "main", "requirements"]

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = (".git", ".*cache", ".venv*", "__pycache__", "*.so", "*.egg-info", "build", "dist")
EXTRAS = {
    "cli": "splitpipe.cli.app",
    "zstd": "splitpipe.codecs",
    "gzip": "splitpipe.formats.lines",
    "table": "splitpipe.integrations.arrow",
    "tokenizers": "splitpipe.tokens",
    "remote": "splitpipe.stores",
    "s3": "splitpipe.stores.s3",
    "sftp": "paramiko",
    "prometheus": "splitpipe.integrations.prometheus",
    "client": "splitpipe.client",
    "server": "splitpipe.server.app",
    "postgresql": "psycopg",
    "image": "splitpipe.raw.media",
    "audio": "soundfile",
    "video": "av",
    "pandas": "splitpipe.integrations.tables",
    "polars": "splitpipe.integrations.tables",
}
"""Of each extra that can be had quickly: what needs it."""


def requirements(extra: str | None = None) -> list[Requirement]:
    """What the core needs, or an extra and the extras that it names."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    if extra is None:
        text = parser["options"]["install_requires"]
    else:
        text = parser["options.extras_require"][extra]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = []
    for one in map(Requirement, lines):
        if one.name == "splitpipe":
            found += [needed for name in sorted(one.extras) for needed in requirements(name)]
        else:
            found.append(one)
    return found


def lowest(needed: list[Requirement], python: str) -> list[str]:
    """Each at the lowest version that is allowed with a Python.

    Example:
        >>> lowest([Requirement("numpy>=1.26; python_version < '3.13'")], "3.11")
        ['numpy==1.26']
        >>> lowest([Requirement("numpy>=1.26; python_version < '3.13'")], "3.13")
        []
    """
    found = {}
    for one in needed:
        if one.marker is None or one.marker.evaluate({"python_version": python}):
            bounds = [bound.version for bound in one.specifier if bound.operator in (">=", "==")]
            found[one.name] = f"{one.name}=={bounds[0]}" if bounds else one.name
    return list(found.values())


def main(arguments: list[str] | None = None) -> int:
    """Build, install and try; the exit code is 0 if all is well."""
    parser = argparse.ArgumentParser(description="Try what would be published.")
    parser.add_argument("--python", action="append", help="such as 3.12; this one unless said")
    parser.add_argument("--extras", action="store_true", help="the lowest versions of extras, too")
    parser.add_argument("--keep", type=Path, help="a folder for the sdist and the wheels")
    options = parser.parse_args(arguments)
    pythons = options.python or [f"{sys.version_info[0]}.{sys.version_info[1]}"]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        _say("the sdist")
        # A copy: setuptools makes and removes folders in what it builds.
        tree = shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(*LEFT_OUT))
        _run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, tree)
        (sdist,) = folder.glob("*.tar.gz")
        for python in pythons:
            _try_one(python, sdist, folder)
        _try_without_compiler(pythons[0], sdist, folder)
        if options.extras:
            for extra, module in EXTRAS.items():
                _try_extra(pythons[0], extra, module, folder)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for made in (*folder.glob("*.tar.gz"), *folder.glob("wheels-*/splitpipe-*.whl")):
                shutil.copy(made, options.keep)
    _say("all is well")
    return 0


def _try_one(python: str, sdist: Path, folder: Path) -> None:
    with _environment(python, folder) as pip:
        pip("wheel", "--no-deps", "--wheel-dir", folder / f"wheels-{python}", sdist)
    (wheel,) = (folder / f"wheels-{python}").glob("*.whl")
    for name, pinned in (("newest", []), ("lowest", lowest(requirements(), python))):
        with _environment(python, folder) as pip:
            _say(f"Python {python}, {name}: {' '.join(pinned)}")
            pip("install", wheel, *pinned)
            _smoke(pip.python, folder, "native")


def _try_without_compiler(python: str, sdist: Path, folder: Path) -> None:
    with _environment(python, folder) as pip:
        _say(f"Python {python}, no compiler")
        nothing = {"CC": "/nowhere/cc", "CXX": "/nowhere/c++"}
        pip("install", "--no-cache-dir", sdist, **nothing)
        _smoke(pip.python, folder, "python")


def _try_extra(python: str, extra: str, module: str, folder: Path) -> None:
    (wheel,) = (folder / f"wheels-{python}").glob("*.whl")
    pinned = lowest([*requirements(), *requirements(extra)], python)
    with _environment(python, folder) as pip:
        _say(f"Python {python}, [{extra}] at its lowest: {' '.join(pinned)}")
        pip("install", f"{wheel}[{extra}]", *pinned)
        _run(pip.python, "-I", "-c", f"import {module}", cwd=folder)


class _Pip:
    def __init__(self, python: Path) -> None:
        self.python = python

    def __call__(self, *arguments: str | Path, **environment: str) -> None:
        _run(self.python, "-m", "pip", "--quiet", *arguments, **environment)


@contextmanager
def _environment(python: str, folder: Path) -> Iterator[_Pip]:
    """An empty one, removed at the end."""
    name = f"python{python}"
    here = sys.executable if sys.version.startswith(f"{python}.") else shutil.which(name)
    if here is None:
        raise SystemExit(f"there is no {name} on the path")
    place = Path(tempfile.mkdtemp(dir=folder))
    _run(here, "-m", "venv", place)
    try:
        yield _Pip(place / "bin" / "python")
    finally:
        shutil.rmtree(place)


def _smoke(python: Path, folder: Path, kernel: str) -> None:
    # Workers import the main program again: it lies where nothing else does.
    place = Path(tempfile.mkdtemp(dir=folder))
    shutil.copy(ROOT / "tests" / "smoke.py", place)
    _run(python, "-I", "smoke.py", cwd=place, SMOKE_KERNEL=kernel)


def _run(*command: str | Path, cwd: Path | None = None, **environment: str) -> None:
    kept = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
