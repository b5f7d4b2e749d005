"""What holds for the tests of this folder."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _nobody_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power fails in simulation only here, and these tests sync a hundred thousand times."""
    # A wrong descriptor is as wrong as ever.
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: os.fstat(descriptor) and None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor) and None)
