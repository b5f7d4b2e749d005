"""Children of a server end with it, whatever they are doing."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys

import pytest

from tests.server.serving import environment

WAITING = """
import os, signal
from splitpipe.server.children import die_with_the_server
job = os.read(0, 100)
die_with_the_server(os.dup(0))
print(job.decode(), flush=True)
signal.pause()
"""


@pytest.mark.skipif(not hasattr(fcntl, "F_SETSIG"), reason="the kernel tells nobody: a thread does")
def test_one_that_cannot_run_ends_with_the_pipe_of_its_job() -> None:
    command = [sys.executable, "-c", WAITING]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), text=True, **pipes) as child:  # type: ignore[call-overload]
        child.stdin.write("work\n")
        child.stdin.flush()
        assert child.stdout.readline() == "work\n"
        child.send_signal(signal.SIGSTOP)
        child.stdin.close()
        assert child.wait(60) == -signal.SIGKILL
