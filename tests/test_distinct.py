"""Distinct numbers, and that reading needs no more of numpy than there is anyway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.distinct import distinct

PROGRAM = """
import sys
import splitpipe as sp
ds = sp.open_dataset(sys.argv[1])
assert ds.get_batch([3, 1, 40]) and ds[:5]
for shuffle in ("global", "binwise"):
    items = list(sp.Pipeline(ds, shuffle=shuffle).shard(0, 2).loader(executor="inline"))
    assert len(items) == 25
assert len(sp.concat([ds, ds]).get_batch([70, 2])) == 2
print(*sorted(name for name in sys.modules if name.startswith("numpy.ma.")))
"""


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_as_numpy_has_it(numbers: list[int]) -> None:
    array = np.array(numbers, np.int64)
    assert distinct(array).tolist() == np.unique(array).tolist()


def test_reading_imports_no_masked_arrays(tmp_path: Path) -> None:
    with sp.DatasetWriter(tmp_path, bins=3) as writer:
        writer.write_many([b"%d" % number for number in range(50)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr
