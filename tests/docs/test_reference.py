"""Every public name, command, option and setting stands in the documentation."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

import splitpipe
from splitpipe.cli.app import app
from tests.docs.reading import DOCS, ROOT, section

REFERENCE = DOCS / "reference"
SETTINGS = REFERENCE / "settings.md"
SHOWN = re.compile(r"^::: (?P<name>[\w.]+)$", re.MULTILINE)
VARIABLE = re.compile(r"\bSPLITPIPE_[A-Z_]*[A-Z]\b")

# Names of macros of the kernel in C, which are no variables of the environment.
NO_VARIABLES = {"SPLITPIPE_COLUMN_H", "SPLITPIPE_CRC", "SPLITPIPE_GIL_H", "SPLITPIPE_SLICES"}

# Section of the settings page -> what it lists: names of parameters or fields, as ``module:name``.
LISTED = {
    "Running a pipeline: `pipe.loader(...)`, `sp.run(...)`": [
        "splitpipe.pipeline.builder:Pipeline.loader",
        "splitpipe.pipeline.loading:LoaderOptions",
    ],
    "Stages": [
        "splitpipe.pipeline.methods.base:StreamOptions",
        "splitpipe.pipeline.methods.base:PoolOptions",
    ],
    "Opening: `sp.open_dataset(...)`": ["splitpipe.dataset.opening:open_dataset"],
    "Writing: `sp.DatasetWriter(...)`": [
        "splitpipe.storage.writer:DatasetWriter",
        "splitpipe.storage.options:WriterOptions",
    ],
    "Jobs: `sp.Job(...)` and its `run`": [
        "splitpipe.jobs.looking:JobOptions",
        "splitpipe.jobs.define:JobRunOptions",
    ],
    "Converting: `sp.convert(...)`": ["splitpipe.conversion.job:ConvertOptions"],
    "Tokens: `sp.tokenize(...)`": ["splitpipe.tokens.job:TokenizeOptions"],
    "Raw samples: `sp.open_raw(...)`": ["splitpipe.raw.options:RawOptions"],
    "Requests of stores": [
        "splitpipe.stores.patience:RetryPolicy",
        "splitpipe.stores.patience:Timeouts",
    ],
    "A loader of the data service: `client.iterate(...)`": ["splitpipe.client.loader:Options"],
    "The server: `splitpipe serve`": ["splitpipe.server.settings:Settings"],
}
# Parameters that are no settings: what the call is about.
ARGUMENTS = {"path", "schema", "more", "options"}


def shown() -> set[str]:
    return {
        name
        for page in REFERENCE.glob("*.md")
        for name in SHOWN.findall(page.read_text(encoding="utf-8"))
    }


def named(place: str) -> Any:
    module, _, path = place.partition(":")
    value: Any = importlib.import_module(module)
    for name in path.split("."):
        value = getattr(value, name)
    return value


def fields_of(value: Any) -> set[str]:
    """The names that may be set: of a TypedDict, of a dataclass, or keyword-only parameters."""
    if dataclasses.is_dataclass(value):
        return {field.name for field in dataclasses.fields(value)}
    if hasattr(value, "__optional_keys__"):
        return {*value.__optional_keys__, *value.__required_keys__}
    parameters = inspect.signature(value).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


# -- names


def test_every_public_name_is_in_the_reference() -> None:
    missing = {f"::: splitpipe.{name}" for name in splitpipe.__all__} - {
        f"::: {name}" for name in shown()
    }
    assert missing == set(), "no page of docs/reference has these"


def test_what_the_reference_shows_is_there() -> None:
    wrong = {name for name in shown() if not _documented(name)}
    assert wrong == set()


def _documented(name: str) -> bool:
    """Whether there is such a thing, with a docstring; or its extra is not installed."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("splitpipe"):
                continue
            return True
        for part in parts[cut:]:
            value = getattr(value, part, None)
        return bool(value and value.__doc__)
    return False


INNER = {"ahead", "extras", "labelled"}
"""Modules of integrations that are for other integrations alone."""


def test_every_integration_is_in_the_reference() -> None:
    folder = ROOT / "splitpipe" / "integrations"
    found = shown()
    for path in sorted(folder.iterdir()):
        if path.name.startswith("_") or not (path.is_dir() or path.suffix == ".py"):
            continue
        if path.stem in INNER:
            continue
        name = f"splitpipe.integrations.{path.stem}"
        assert any(one == name or one.startswith(f"{name}.") for one in found), (
            f"docs/reference/integrations.md has no '::: {name}'"
        )


def test_every_public_name_shows_an_example() -> None:
    assert [name for name in splitpipe.__all__ if not _shows_an_example(name)] == []


def _shows_an_example(name: str) -> bool:
    value = getattr(splitpipe, name)
    if isinstance(value, type) and issubclass(value, Exception):
        return bool(value.__doc__)
    examples = doctest.DocTestFinder(recurse=False).find(value, name)
    return any(test.examples for test in examples)


# -- the command


def commands(group: Any = None, before: str = "") -> dict[str, Any]:
    """Every command, also those of groups: ``client datasets list`` -> the command."""
    group = typer.main.get_command(app) if group is None else group
    found = {}
    for name, command in group.commands.items():
        whole = f"{before} {name}".strip()
        found[whole] = command
        if hasattr(command, "commands"):
            found |= commands(command, whole)
    return found


COMMANDS = commands()


def test_there_are_commands() -> None:
    assert {"check", "convert", "demo", "head", "info", "tokenize"} <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted({name.split()[0] for name in COMMANDS}))
def test_command_is_documented(name: str) -> None:
    """Every option stands under its own command, or among what all have in common."""
    page = DOCS / "cli.md"
    written = section(page, f"splitpipe {name}")
    written += section(page, "What all commands have in common")
    for whole, command in COMMANDS.items():
        if whole.split()[0] != name:
            continue
        assert command.help, whole
        assert all(re.search(rf"\b{word}\b", written) for word in whole.split()[1:]), whole
        missing = [one for one in _options(command) if not re.search(rf"{one}(?![\w-])", written)]
        assert missing == [], f"docs/cli.md does not say them of splitpipe {whole}"


def _options(command: Any) -> list[str]:
    return [
        option
        for parameter in command.params
        if parameter.param_type_name == "option"
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    ]


# -- settings


@pytest.mark.parametrize("title", LISTED)
def test_every_option_is_a_setting(title: str) -> None:
    text = section(SETTINGS, title)
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    there = set().union(*(fields_of(named(place)) for place in LISTED[title])) - ARGUMENTS
    assert there - listed == set(), "these options are not on the page"
    # A policy is taken by some methods themselves, beside the options that they share.
    assert listed - there <= {"on_error"}, "these are options no more"


def test_every_field_of_an_iteration_is_documented() -> None:
    from splitpipe.server.iterations.description import IterationSpec

    text = section(DOCS / "server.md", "Iterations")
    for name in IterationSpec.model_fields:
        assert f"| `{name}` |" in text


def test_every_variable_of_the_environment_is_documented() -> None:
    """Each string of the program that looks like one of ours."""
    text = section(SETTINGS, "Environment variables")
    found: set[str] = set()
    for path in sorted((ROOT / "splitpipe").rglob("*.py")):
        found |= {name for string in _strings(path) for name in VARIABLE.findall(string)}
    assert {name for name in found - NO_VARIABLES if f"`{name}`" not in text} == set()


def test_variables_of_launchers_are_documented() -> None:
    from splitpipe.pipeline.ranks import VARIABLES

    text = section(SETTINGS, "Environment variables")
    assert [name for pair in VARIABLES for name in pair if f"`{name}`" not in text] == []


def _strings(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
