"""The crash table, for what runs out: descriptors, address space, shared memory.

Either the stream is whole or it is said what is missing: no hang, no short stream, nothing left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.running import ROOT, running

pytestmark = pytest.mark.deadline(60)
LONG = os.environ.get("SPLITPIPE_FAULTS") == "long"

COMMON = """
    import os, resource, sys
    import numpy as np
    import splitpipe as sp
    import splitpipe.loader, splitpipe.runtime.supervisor

    MIB = 1 << 20

    def large(x):
        return np.full(8 * MIB, x, np.uint8)

    def used():
        return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    def limit(nbytes):
        resource.setrlimit(resource.RLIMIT_AS, (used() + nbytes, resource.RLIM_INFINITY))

    def limited(nbytes, x):
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            limit(nbytes)
        return large(x)

    def outcome(loader):
        got = []
        try:
            with loader:
                for batch in loader:
                    assert batch.min() == batch.max()
                    got.append(int(batch[0]))
                    del batch
        except BaseException as error:
            names = [kind.__name__ for kind in type(error).__mro__]
            return got, names, str(error)
        return got, [], ""
"""


def said(folder: Path, body: str) -> str:
    """Run a program to its end; what it printed."""
    with running(folder, COMMON + body) as program:
        status, out, errors = program.finish()
        assert status == 0, errors
        program.assert_nothing_left([])
        return out.strip()


@pytest.mark.parametrize("limit", [16, 24, 32, 48] if not LONG else range(8, 64))
@pytest.mark.parametrize("method", ["forkserver", "spawn"] if LONG else ["forkserver"])
def test_few_descriptors(tmp_path: Path, limit: int, method: str) -> None:
    out = said(
        tmp_path,
        f"""
    def main():
        resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
        try:
            pipe = sp.Pipeline(range(9)).map(str, workers=2)
            with pipe.loader(start_method={method!r}) as loader:
                print("whole" if list(loader) == [str(i) for i in range(9)] else "short")
        except (OSError, sp.SplitpipeError) as error:
            print("told", error)

    if __name__ == "__main__":
        main()
    """,
    )
    assert out.startswith(("whole", "told"))


class TestAddressSpace:
    def test_of_a_worker_that_has_room_for_its_own_work_alone(self, tmp_path: Path) -> None:
        """No slot can be mapped: payloads go as files inside messages."""
        out = said(
            tmp_path,
            """
    from functools import partial

    def main():
        pipe = sp.Pipeline(range(20)).map(partial(limited, 20 * MIB), workers=1)
        got, kinds, text = outcome(pipe.loader(start_method="fork"))
        print("whole" if got == list(range(20)) else (got, kinds, text))

    if __name__ == "__main__":
        main()
    """,
        )
        assert out == "whole"

    def test_of_a_worker_that_has_no_room_for_its_own_work(self, tmp_path: Path) -> None:
        """What the stage raises is told at its place."""
        out = said(
            tmp_path,
            """
    from functools import partial

    def main():
        pipe = sp.Pipeline(range(20)).map(partial(limited, 4 * MIB), workers=1)
        got, kinds, text = outcome(pipe.loader(start_method="fork"))
        print(got, "MemoryError" in kinds, "8.00 MiB" in text)

    if __name__ == "__main__":
        main()
    """,
        )
        assert out == "[] True True"

    def test_of_the_consumer(self, tmp_path: Path) -> None:
        """A batch that it cannot map is an error that says what to lower."""
        out = said(
            tmp_path,
            """
    def main():
        loader = sp.Pipeline(range(20)).map(large, workers=2).loader(start_method="fork")
        limit(4 * MIB)
        got, kinds, text = outcome(loader)
        print(got, kinds[0], "could not be mapped" in text)

    if __name__ == "__main__":
        main()
    """,
        )
        assert out == "[] ChannelError True"

    def test_of_the_consumer_where_payloads_lie_inside_messages(self, tmp_path: Path) -> None:
        out = said(
            tmp_path,
            """
    def main():
        pipe = sp.Pipeline(range(20)).map(large, workers=2)
        loader = pipe.loader(start_method="fork", arena_bytes=0)
        limit(4 * MIB)
        got, kinds, text = outcome(loader)
        print(got, kinds[0], "could not be mapped" in text)

    if __name__ == "__main__":
        main()
    """,
        )
        assert out == "[] ChannelError True"

    @pytest.mark.parametrize("mebibytes", [1, 24, 256] if not LONG else [*range(1, 65), 256])
    @pytest.mark.parametrize("method", ["fork", "forkserver"] if LONG else ["fork"])
    def test_of_everybody_from_the_start(self, tmp_path: Path, mebibytes: int, method: str) -> None:
        out = said(
            tmp_path,
            f"""
    def main():
        limit({mebibytes} * MIB)
        try:
            loader = sp.Pipeline(range(20)).map(large, workers=2).loader(start_method={method!r})
        except (OSError, MemoryError, RuntimeError, sp.SplitpipeError) as error:
            print("told at the start", error)
            return
        got, kinds, text = outcome(loader)
        if got == list(range(20)):
            print("whole")
        else:
            right = {{"MemoryError", "OSError", "RuntimeError", "SplitpipeError"}} & set(kinds)
            print("told" if right and got == list(range(len(got))) else kinds, text)

    if __name__ == "__main__":
        main()
    """,
        )
        assert out.startswith(("whole", "told")), out


UNSHARE = shutil.which("unshare")


def own_shared_memory() -> bool:
    """Whether this system lets us have a ``/dev/shm`` of our own."""
    if UNSHARE is None:
        return False
    command = [UNSHARE, "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not own_shared_memory(), reason="needs a mount namespace")
@pytest.mark.parametrize("transport", ["pipe", "zmq", "zmq+tcp"])
def test_a_full_dev_shm_changes_nothing(tmp_path: Path, transport: str) -> None:
    """Nothing of ours lies there."""
    script = tmp_path / "main.py"
    script.write_text(
        "import os\nimport numpy as np\nimport splitpipe as sp\n\n"
        "def large(x):\n    return np.full(8 << 20, x, np.uint8)\n\n"
        "if __name__ == '__main__':\n"
        "    full = os.open('/dev/shm/full', os.O_CREAT | os.O_WRONLY)\n"
        "    size = os.statvfs('/dev/shm')\n"
        "    os.posix_fallocate(full, 0, size.f_bfree * size.f_bsize)\n"
        "    assert os.statvfs('/dev/shm').f_bfree == 0\n"
        "    pipe = sp.Pipeline(range(20)).map(large, workers=2)\n"
        f"    with pipe.loader(transport={transport!r}) as loader:\n"
        "        print([int(batch[-1]) for batch in loader] == list(range(20)))\n"
        "    print(os.listdir('/dev/shm'))\n"
    )
    small = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$0" "$1"'
    assert UNSHARE is not None
    done = subprocess.run(
        [UNSHARE, "--mount", "sh", "-c", small, sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n['full']\n", "")
