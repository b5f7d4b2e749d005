"""What mkdocs does to a page before it renders it.

Responsible for: the one word of our fences that Markdown renderers of sites do not know. A block
that begins with ``python runnable`` is a program of its own (the tests run it); to a reader it is
Python.
"""

from __future__ import annotations

from typing import Any

__all__ = ["on_page_markdown"]


def on_page_markdown(markdown: str, **_other: Any) -> str:
    r"""Let every block of Python be highlighted as one.

    >>> on_page_markdown("```python runnable\nprint()\n```", page=None)
    '```python\nprint()\n```'
    """
    return markdown.replace("```python runnable\n", "```python\n")
