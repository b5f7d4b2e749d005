"""What the pages say, as values: for the tests of the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(
    r"^```python(?P<runnable> runnable)?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_OTHER_FENCE = re.compile(r"^\s*```+\s*(?:py|python|pycon)\b(?P<rest>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of Python on a page: a program of its own, or a fragment of the page's."""

    page: Path
    line: int
    code: str
    program: bool

    @property
    def place(self) -> str:
        """Where its code begins, as ``page:line``."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def __str__(self) -> str:
        return self.place


def blocks_of(page: Path) -> list[Block]:
    """Every block of Python of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("code")) + 1,
            found["code"],
            bool(found["runnable"]),
        )
        for found in _FENCE.finditer(text.replace("\r\n", "\n"))
    ]


def fences_of(page: Path) -> int:
    """How many blocks of a page are said to be Python, however they are written."""
    return len(_OTHER_FENCE.findall(page.read_text(encoding="utf-8")))


def section(page: Path, title: str) -> str:
    """What stands on a page under a heading, up to the next one of its level or a higher one."""
    lines, taken, level = page.read_text(encoding="utf-8").splitlines(), [], 0
    for line in lines:
        depth = len(line) - len(line.lstrip("#")) if line.startswith("#") else 0
        if level and depth and depth <= level:
            break
        if level:
            taken.append(line)
        elif depth and line.lstrip("# ") == title:
            level = depth
    assert taken, f"{page.name} has no section {title!r}"
    return "\n".join(taken)
