"""Reading through one of the two kernels, in the same process."""

from __future__ import annotations

import pytest

from splitpipe.storage.native import kernel, twin

__all__ = ["KERNELS", "use_kernel"]

KERNELS = ("native", "python")


def use_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let datasets that are opened from now on read through a kernel; skip where it is not."""
    if name == "native":
        if kernel.NAME != "native":
            pytest.skip("the kernel in C was not built")
        return
    for attribute in kernel.__all__:
        monkeypatch.setattr(kernel, attribute, getattr(twin, attribute))
