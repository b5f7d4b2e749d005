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
from multiprocessing.process import BaseProcess
from typing import Any

from splitpipe.errors import PipelineError
from splitpipe.pipeline.plan import RunOptions, Task
from splitpipe.runtime.board import Row
from splitpipe.runtime.deaths import Death
from splitpipe.runtime.forking import starting_context
from splitpipe.runtime.metrics import finished, started
from splitpipe.runtime.notes import site_of
from splitpipe.runtime.reserve import UNKNOWN, Hand, Reserve
from splitpipe.runtime.standby import Line
from splitpipe.runtime.threads import WorkerThread, join_all
from splitpipe.runtime.watchdog import Stall, Ward, deadlines, names
from splitpipe.runtime.worker import WorkerSpec, main, serve

__all__ = ["THREAD_GRACE_S", "Post", "Staff"]

THREAD_GRACE_S = 1.0
"""How long a thread may take, which cannot be killed: only one in user code needs that."""

_keys = count()


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
        reserve: processes that need not be started.
    """

    def __init__(
        self,
        options: RunOptions,
        on_death: Callable[[str, BaseException], None],
        reserve: Reserve,
    ) -> None:
        self._options = options
        self._on_death = on_death
        self._reserve = reserve
        self._calls = options.start_method != "fork"  # what is forked has work that cannot travel
        self._lingers = options.transport.startswith("zmq")
        self._hands: list[tuple[Hand, Post]] = []
        self._threads: list[WorkerThread] = []
        self._stalls: dict[int, Stall] = {}
        self.watched: list[int] = []
        """Descriptors that can be read when a process has ended."""
        self.wards: dict[int, Ward] = {}
        """Those that have deadlines."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the worker processes."""
        return tuple(hand.process.pid for hand, _ in self._hands)

    def start(self, posts: Sequence[Post]) -> None:
        """Start some workers."""
        actors = [post for post in posts if post.task.executor == "ray"]
        if actors:
            self._start_actors(actors)
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
        for hand, post in self._hands:
            worker = hand.process
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
        ours = isinstance(worker, BaseProcess)
        if ours and worker.exitcode is None and self._options.start_method in ("fork", "spawn"):
            try:
                os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                worker._popen.returncode = UNKNOWN
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
        for hand, _ in self._hands:
            if hand.process.pid == ward.pid and hand.process.exitcode is None:
                self._stalls[hand.process.pid] = stall
                hand.kill()
        return ward.pid is not None

    def join(self, grace_s: float) -> list[WorkerThread]:
        """Wait for all to leave, and kill those that do not; return the threads left."""
        self._await(grace_s)
        left = join_all(self._threads, THREAD_GRACE_S)
        self._threads.clear()
        for hand, _ in self._hands:
            hand.process.join()
            self._status(hand.process)
            hand.close()
        self._hands.clear()
        self.watched.clear()
        self.wards.clear()
        return left

    def call_back(self) -> None:
        """Call everybody back whom the reserve can keep; before anything is shut."""
        for hand, _ in self._hands:
            if hand.line is not None:
                hand.line.call()

    def recall(self, grace_s: float) -> list[WorkerThread]:
        """As `join`, but those who were called back and come in time are kept in reserve."""
        back = self._await(grace_s, called=True)
        for hand, post in self._hands:
            if hand in back:
                self._reserve.keep(post.spec.row, hand)
        self._hands = [one for one in self._hands if one[0] not in back]
        return self.join(0.0)

    def _await(self, grace_s: float, *, called: bool = False) -> set[Hand]:
        """Wait for all to leave, or to be on standby where they were `called`, and kill those that
        do neither in time; return who is on standby.
        """
        deadline = time.monotonic() + grace_s
        waiting = {hand.process.sentinel: hand for hand, _ in self._hands}
        lines = {hand.line: hand for hand, _ in self._hands if called and hand.line is not None}
        back: set[Hand] = set()
        while waiting:
            timeout_s = max(0.0, deadline - time.monotonic())
            ready: list[Any] = connection.wait([*waiting, *lines], timeout=timeout_s)  # type: ignore[list-item]
            if not ready:
                break
            for one in ready:
                if one not in lines:
                    waiting.pop(one)
                    continue
                hand = lines.pop(one)
                if one.ready():  # if not, it is leaving
                    back.add(hand)
                    waiting.pop(hand.process.sentinel, None)
        for hand in waiting.values():
            hand.kill()
        return back

    def _start_processes(self, posts: Sequence[Post]) -> None:
        context: Any = starting_context(self._options.start_method)
        # A worker that is being started inherits the mask: it leaves when the run is shut, without
        # a traceback of its own. The fork server would hand it on to processes that are not ours.
        deferred = {signal.SIGINT} if context.get_start_method() != "forkserver" else set()
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, deferred)
        left: list[Post] = []
        try:
            for post in posts:
                hand = self._reserve.give(post.spec)
                if hand is not None:
                    self._take_on(hand, post)
                else:
                    left.append(post)
            for post in left:
                self._take_on(self._started(context, post), post)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)

    def _start_actors(self, posts: Sequence[Post]) -> None:
        left: list[Post] = []
        for post in posts:
            hand = self._reserve.give(post.spec, spares=False)
            if hand is not None:
                self._take_on(hand, post)
            else:
                left.append(post)
        if left:
            wanted = [(post.spec, post.task.resources) for post in left]
            for hand, post in zip(self._reserve.crew().hire(wanted), left, strict=True):
                self._take_on(hand, post)

    def _started(self, context: Any, post: Post) -> Hand:
        line = Line() if self._calls else None
        process = context.Process(
            target=main, args=(post.spec, line), name=f"splitpipe {post.spec.name}"
        )
        try:
            process.start()
        except BaseException as error:
            if line is not None:
                line.close()
            if not isinstance(error, (EOFError, ConnectionError)):
                raise
            raise PipelineError(
                "the process that starts the workers died at its start; is the main script "
                "guarded with `if __name__ == '__main__':`? Its own error stands above"
            ) from error
        if line is not None:
            line.started()
        return Hand(process, line)

    def _take_on(self, hand: Hand, post: Post) -> None:
        self._hands.append((hand, post))
        self.watched.append(hand.process.sentinel)
        self._look_after(post, hand.process.pid)

    def _look_after(self, post: Post, pid: int | None) -> None:
        limits, spec = deadlines(post.task, self._options), post.spec
        if limits is not None and spec.stacks is not None:
            ward = Ward(spec.name, post.row, limits, names(post.task), spec.stacks, pid)
            self.wards[next(_keys)] = ward
