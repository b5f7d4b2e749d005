"""Which twin is used: what is compiled, or Python."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.parametrize("room", ["storage", "transport"])


def _built(room: str) -> bool:
    return find_spec(f"splitpipe.{room}.native._kernel") is not None


def _said(room: str, wish: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}\nfrom splitpipe.{room}.native import kernel; print(kernel.NAME)"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SPLITPIPE_KERNEL": wish},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_twin_can_be_asked_for(room: str) -> None:
    assert _said(room, "python").stdout.strip() == "python"


def test_what_is_compiled_is_taken_where_it_is(room: str) -> None:
    if not _built(room):
        pytest.skip("it is not built here")
    assert _said(room, "").stdout.strip() == "native"
    assert _said(room, "native").stdout.strip() == "native"


def test_who_insists_on_what_is_not_there_is_told(room: str) -> None:
    without = f"import sys; sys.modules['splitpipe.{room}.native._kernel'] = None"
    for wish, found in (("", "python"), ("native", "")):
        done = _said(room, wish, without)
        assert done.stdout.strip() == found
        assert (done.returncode == 0) == bool(found)


def test_another_wish_is_refused(room: str) -> None:
    done = _said(room, "fortran")
    assert done.returncode != 0
    assert "SPLITPIPE_KERNEL must be" in done.stderr


def test_both_have_the_same_names(room: str) -> None:
    if not _built(room):
        pytest.skip("it is not built here")
    names = import_module(f"splitpipe.{room}.native.kernel").__all__
    twin = import_module(f"splitpipe.{room}.native.twin")
    native = import_module(f"splitpipe.{room}.native._kernel")
    constants = {"MARK", "PLACE"}  # what both mean is said once
    for name in set(names) - constants:
        assert hasattr(twin, name), name
        assert hasattr(native, name), name
