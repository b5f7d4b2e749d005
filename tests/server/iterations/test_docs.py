"""Every field of a description is documented."""

from __future__ import annotations

from pathlib import Path

from splitpipe.server.iterations.description import IterationSpec

PAGE = Path(__file__).resolve().parents[3] / "docs" / "server.md"


def test_the_page_has_every_field_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Iterations")[2].partition("\n### ")[0]
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")]
    assert rows == [f"`{name}`" for name in IterationSpec.model_fields]


def test_every_field_says_what_it_does() -> None:
    for name, field in IterationSpec.model_fields.items():
        assert field.description, name
