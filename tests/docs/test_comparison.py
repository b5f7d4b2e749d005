"""The comparison with peers says nothing that has no source, and what the measured tables say."""

from __future__ import annotations

import re

import pytest

from tests.docs.reading import DOCS, section

PAGE = DOCS / "comparison.md"
CELL = re.compile(r"\[(?P<said>[^\]]+(?:\[i\][^\]]*)?)\]\((?P<source>[^)]+)\)")
ABSENT = "\N{EN DASH}"

# A word of ours -> what the table of faults says in such a cell.
MEANINGS = {
    "all items": r"^all items$",
    "error": r"^`\w+` after",
    "hangs": r"^\*\*hangs\*\*",
    "ends quietly": r"^\*\*ends quietly",
    "the whole program ends": r"^\*\*the whole program ends",
}


def table(text: str) -> list[list[str]]:
    """The rows of the first table in a text, its heading first."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif rows:
            break
    return [[cell.strip("| ") for cell in row] for row in rows if not set(row[0]) <= set("-|")]


def slug(title: str) -> str:
    """The name that a heading is linked by, as mkdocs makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


@pytest.mark.parametrize(
    "title", ["What is promised", "What comes of faults", "What is measured of speed"]
)
def test_each_cell_has_its_source(title: str) -> None:
    heading, *rows = table(section(PAGE, title))
    assert rows
    for row in rows:
        assert len(row) == len(heading), row
        for cell in row[1:]:
            assert cell == ABSENT or CELL.fullmatch(cell), f"{row[0]}: {cell!r} has no source"


def test_faults_are_what_was_measured() -> None:
    text = (DOCS / "failures.md").read_text(encoding="utf-8")
    measured = text.partition("crashes: begin")[2].partition("crashes: end")[0]
    heading, *rows = table(measured.partition("```\n\n")[2])
    seen = {row[0]: dict(zip(heading, row, strict=True)) for row in rows}
    ours, *said = table(section(PAGE, "What comes of faults"))
    for row in said:
        for system, cell in list(zip(ours, row, strict=True))[1:]:
            found = CELL.fullmatch(cell)
            assert found is not None
            there = seen[row[0]][system]
            assert re.search(MEANINGS[found["said"]], there), f"{row[0]}, {system}: {there}"


def test_tables_have_the_systems_that_are_named() -> None:
    performance = DOCS / "performance.md"
    titles = re.findall(r"^#+ (.+)$", performance.read_text(encoding="utf-8"), re.MULTILINE)
    sections = {slug(title): title for title in titles}
    for row in table(section(PAGE, "What is measured of speed"))[1:]:
        found = CELL.fullmatch(row[1])
        assert found is not None
        there = section(performance, sections[found["source"].partition("#")[2]]).lower()
        if found["said"] == "the same":
            continue
        for name in found["said"].removesuffix(" and others").split(", "):
            short = {"a plain numpy map": "memmap", "the bound": "memmap", "ZeroMQ": "zmq"}
            wanted = short.get(name, name).lower().strip("`").replace("-", "[-_]")
            assert re.search(wanted, there), f"{row[0]}: {name} is not in {found['source']}"
