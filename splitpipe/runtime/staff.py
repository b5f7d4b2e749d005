"""The processes and threads of one set of workers.

Responsible for: `Staff`, which starts them, tells which of them died and how, and ends them.

Rules:
- processes start before threads: what is forked holds no lock of a thread;
- a worker may leave when it has done its work or when the run was shut; any other leave is its
  death. Where a channel lets a writer's last messages go with it, work is done when it may leave;
- who has not left in time is killed, a thread is left to itself. No worker holds anything that its
  death could break.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from multiprocessing import connection
from typing import Any

from splitpipe.errors import PipelineError
from splitpipe.pipeline.plan import RunOptions, Task
from splitpipe.runtime.board import Row
from splitpipe.runtime.deaths import Death
from splitpipe.runtime.forking import starting_context
from splitpipe.runtime.metrics import finished, started
from splitpipe.runtime.notes import site_of
from splitpipe.runtime.threads import WorkerThread, join_all
from splitpipe.runtime.watchdog import Stall, Ward, deadlines, names
from splitpipe.runtime.worker import WorkerSpec, main, serve

__all__ = ["THREAD_GRACE_S", "Post", "Staff"]

THREAD_GRACE_S = 1.0
"""How long a thread may take, which cannot be killed: only one in user code needs that."""

_keys = count()

_UNKNOWN = 255
"""The status of a process that somebody else has waited for; multiprocessing's own for such."""


@dataclass(frozen=True, slots=True)
class Post:
    """What one worker is to be.

    Attributes:
        spec: what it is given.
        task: what it is a worker of, ...
        number: ... and the number of that in the plan.
        row: what it writes of itself.
    """

    spec: WorkerSpec
    task: Task
    number: int
    row: Row


class Staff:
    """The workers that were started.

    Args:
        options: of the run.
        on_death: called in a thread that ended as none should, with the name of the worker and what
            it raised.
    """

    def __init__(self, options: RunOptions, on_death: Callable[[str, BaseException], None]) -> None:
        self._options = options
        self._on_death = on_death
        self._lingers = options.transport.startswith("zmq")
        self._processes: list[tuple[Any, Post]] = []
        self._threads: list[WorkerThread] = []
        self._stalls: dict[int, Stall] = {}
        self.watched: list[int] = []
        """Descriptors that can be read when a process has ended."""
        self.wards: dict[int, Ward] = {}
        """Those that have deadlines."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the worker processes."""
        return tuple(worker.pid for worker, _ in self._processes)

    def start(self, posts: Sequence[Post]) -> None:
        """Start some workers."""
        processes = [post for post in posts if post.task.executor == "process"]
        if processes:
            self._start_processes(processes)
        for post in posts:
            if post.task.executor == "thread":
                name = post.spec.name
                work, note = partial(serve, post.spec), partial(self._on_death, name)
                worker = WorkerThread(work, name, note)
                self._threads.append(worker)
                worker.start()
                self._look_after(post, None)

    def gone(self, memory: Callable[[], str | None]) -> list[Death]:
        """Return the deaths since it was asked last; `memory` says what the system says of it."""
        found: list[Death] = []
        if not self._any_left():
            return found
        for worker, post in self._processes:
            code = self._status(worker) if worker.sentinel in self.watched else None
            if code is None:
                continue
            self.watched.remove(worker.sentinel)
            row = post.row
            if finished(row) and (code == 0 or not self._lingers):
                continue
            # Of several outputs each waits for itself: nobody can say that none does.
            site = site_of(row, post.number) if len(post.task.outputs) == 1 else None
            death = Death(
                post.number,
                post.task.name,
                post.spec.index,
                worker.pid,
                code,
                began=started(row),
                site=site,
                stall=self._stalls.get(worker.pid),
            )
            found.append(death)
        if any(death.exitcode == -signal.SIGKILL for death in found):
            told = memory()
            found = [replace(death, memory=told) for death in found]
        return found

    def _status(self, worker: Any) -> int | None:
        """Return how a process ended; None while it has not.

        The program may have waited for it itself (or ignore SIGCHLD): then nobody can say how, and
        multiprocessing would take it for one that is running, for ever.
        """
        if worker.exitcode is None and self._options.start_method in ("fork", "spawn"):
            try:
                os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                worker._popen.returncode = _UNKNOWN
        code: int | None = worker.exitcode
        return code

    def _any_left(self) -> bool:
        """Whether a process has ended: in one call, however many there are."""
        poll = select.poll()
        for sentinel in self.watched:
            poll.register(sentinel, select.POLLIN)
        return bool(poll.poll(0))

    def stop_stalled(self, key: int, stall: Stall) -> bool:
        """Kill the worker `key` of `wards`, for what `stall` says; False: it is a thread."""
        ward = self.wards.pop(key)
        for worker, _ in self._processes:
            if worker.pid == ward.pid and worker.exitcode is None:
                self._stalls[worker.pid] = stall
                worker.kill()
        return ward.pid is not None

    def join(self, grace_s: float) -> list[WorkerThread]:
        """Wait for all to leave, and kill those that do not; return the threads left."""
        deadline = time.monotonic() + grace_s
        waiting = {worker.sentinel: worker for worker, _ in self._processes}
        while waiting:
            timeout_s = max(0.0, deadline - time.monotonic())
            ready = connection.wait(list(waiting), timeout=timeout_s)
            for sentinel in ready:
                waiting.pop(sentinel)
            if not ready:
                break
        for worker in waiting.values():
            worker.kill()
        left = join_all(self._threads, THREAD_GRACE_S)
        self._threads.clear()
        for worker, _ in self._processes:
            worker.join()
            self._status(worker)
            worker.close()
        self._processes.clear()
        self.watched.clear()
        self.wards.clear()
        return left

    def _start_processes(self, posts: Sequence[Post]) -> None:
        context: Any = starting_context(self._options.start_method)
        # A worker that is being started inherits the mask: it leaves when the run is shut, without
        # a traceback of its own. The fork server would hand it on to processes that are not ours.
        deferred = {signal.SIGINT} if context.get_start_method() != "forkserver" else set()
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, deferred)
        try:
            for post in posts:
                worker: Any = context.Process(
                    target=main, args=(post.spec,), name=f"splitpipe {post.spec.name}"
                )
                try:
                    worker.start()
                except (EOFError, ConnectionError) as error:
                    raise PipelineError(
                        "the process that starts the workers died at its start; is the main script "
                        "guarded with `if __name__ == '__main__':`? Its own error stands above"
                    ) from error
                self._processes.append((worker, post))
                self.watched.append(worker.sentinel)
                self._look_after(post, worker.pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)

    def _look_after(self, post: Post, pid: int | None) -> None:
        limits, spec = deadlines(post.task, self._options), post.spec
        if limits is not None and spec.stacks is not None:
            ward = Ward(spec.name, post.row, limits, names(post.task), spec.stacks, pid)
            self.wards[next(_keys)] = ward
