"""Every block of Python in the documentation runs.

A block ``python runnable`` is a program of its own, and prints something. All others of a page are
its fragments: they run in one program, in their order, behind the page's prelude
(``tests/docs/preludes``), which makes what the page takes for granted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.reading import PAGES, ROOT, Block, blocks_of, fences_of
from tests.programs import finished

HERE = Path(__file__).parent
PRELUDES = HERE / "preludes"
LIMIT_S = 300  # a program takes seconds; the rest is for machines that are busy

# Pages whose fragments cannot run here, why, and the test that runs the same.
ELSEWHERE = {
    "docs/ray.md": (
        "a cluster of Ray takes longer to start than all other pages together",
        "tests/runtime/test_onray.py",
    ),
    "docs/torch.md": (
        "each fragment belongs to a framework that takes seconds to import",
        "tests/integrations/torch",
    ),
    "docs/ray-data.md": (
        "a cluster of Ray takes longer to start than all other pages together",
        "tests/integrations/test_on_ray.py",
    ),
}

PROGRAMS = [block for page in PAGES for block in blocks_of(page) if block.program]
WITH_FRAGMENTS = [
    page
    for page in PAGES
    if any(not block.program for block in blocks_of(page))
    and str(page.relative_to(ROOT)) not in ELSEWHERE
]


def prelude_of(page: Path) -> Path:
    """``docs/migrating/from-x.md`` -> ``preludes/migrating_from_x.py``."""
    inside = page.relative_to(ROOT / "docs") if (ROOT / "docs") in page.parents else Path(page.name)
    name = "_".join(inside.with_suffix("").parts).replace("-", "_").lower()
    return PRELUDES / f"{name}.py"


def run(arguments: list[str | Path], folder: Path) -> str:
    return finished(arguments, folder, limit_s=LIMIT_S).stdout


@pytest.mark.deadline(LIMIT_S)
@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_program_runs(block: Block, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(block.code, encoding="utf-8")
    assert run([str(script)], tmp_path)


@pytest.mark.deadline(LIMIT_S)
@pytest.mark.parametrize("page", WITH_FRAGMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_fragments_run(page: Path, tmp_path: Path) -> None:
    prelude = prelude_of(page)
    given = [str(prelude)] if prelude.exists() else []
    said = run([str(HERE / "fragments.py"), str(page), *given], tmp_path)
    for needed in [line for line in said.splitlines() if line.startswith("NEEDS ")]:
        pytest.skip(needed.removeprefix("NEEDS "))
    assert said.endswith("all fragments ran\n")


@pytest.mark.parametrize("page", ELSEWHERE)
def test_what_runs_elsewhere_is_valid_there(page: str) -> None:
    _reason, test = ELSEWHERE[page]
    assert (ROOT / test).exists()
    for block in blocks_of(ROOT / page):
        compile(block.code, block.place, "exec")


def test_every_prelude_has_its_page() -> None:
    wanted = {prelude_of(page) for page in WITH_FRAGMENTS}
    assert set(PRELUDES.glob("*.py")) <= wanted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_of_python_is_missed(page: Path) -> None:
    """A fence that is indented, or has another word behind ``python``, would not be run."""
    assert fences_of(page) == len(blocks_of(page))


def test_readme_has_programs() -> None:
    assert sum(block.page.name == "README.md" for block in PROGRAMS) >= 4
