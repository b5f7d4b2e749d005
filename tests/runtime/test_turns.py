"""What the outputs of one task wait for, and whether it can ever come: driven by hand.

Each output is served by a thread that does what a test says, step by step: nothing here depends on
time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from splitpipe.errors import BrokenChannel
from splitpipe.runtime.outbox import EpochSkipped
from splitpipe.runtime.turns import Waits, _Wait

PATIENCE_S = 120.0


class Task:
    """Some outputs, what their readers are said to do, and a thread for each."""

    def __init__(self, outputs: int) -> None:
        self.hungry = [False] * outputs
        self.left = [False] * outputs
        self.waits = Waits(
            [lambda n=n: self.hungry[n] for n in range(outputs)],  # type: ignore[misc]
            [lambda n=n: self.left[n] for n in range(outputs)],  # type: ignore[misc]
        )
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def serve(self, output: int, act: Callable[[Waits], Any]) -> Future[Any]:
        """Let the thread of `output` do `act`; return what comes of it."""
        made: Future[Any] = Future()

        def run() -> None:
            self.waits.serve(output)
            try:
                made.set_result(act(self.waits))
            except BaseException as error:
                made.set_exception(error)

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()
        return made

    def waiting(self, *outputs: int) -> None:
        """Wait until `outputs` wait for something."""
        waits = self.waits
        with waits.changed:
            assert waits.changed.wait_for(lambda: set(outputs) <= set(waits._waiting), PATIENCE_S)

    def say(self, **changes: Any) -> None:
        """Change what readers do, as ``hungry0=True``, and tell everybody."""
        with self.waits.changed:
            for name, value in changes.items():
                getattr(self, name[:-1])[int(name[-1])] = value
            self.waits.tell()

    def close(self) -> None:
        self.waits.fail(BrokenChannel("the test is over"))
        for thread in self._threads:
            thread.join(PATIENCE_S)


@pytest.fixture
def make() -> Iterator[Callable[[int], Task]]:
    made: list[Task] = []

    def begin(outputs: int) -> Task:
        made.append(Task(outputs))
        return made[-1]

    yield begin
    for task in made:
        task.close()


class Switch:
    """Something that somebody waits for."""

    def __init__(self, task: Task) -> None:
        self._waits = task.waits
        self._on = True

    def still(self) -> bool:
        return self._on

    def off(self) -> None:
        with self._waits.changed:
            self._on = False
            self._waits.tell()


Make = Callable[[int], Task]


class TestWaiting:
    def test_ends_when_there_is_no_reason_left(self, make: Make) -> None:
        task = make(1)
        switch = Switch(task)
        waiting = task.serve(0, lambda waits: waits.wait(switch.still))
        task.waiting(0)
        assert not waiting.done()
        switch.off()
        assert waiting.result(PATIENCE_S) is None
        assert not task.waits._waiting

    def test_without_a_reason_is_none(self, make: Make) -> None:
        task = make(1)
        assert task.serve(0, lambda waits: waits.wait(lambda: False)).result(PATIENCE_S) is None

    def test_of_a_run_that_was_shut_says_so(self, make: Make) -> None:
        task = make(2)
        waiting = [
            task.serve(0, lambda waits: waits.wait(lambda: True)),
            task.serve(1, lambda waits: waits.stuck(0, lambda: True)),
        ]
        task.waiting(0, 1)
        task.waits.fail(BrokenChannel("shut"))
        for one in waiting:
            with pytest.raises(BrokenChannel, match="shut"):
                one.result(PATIENCE_S)
        late = task.serve(0, lambda waits: waits.wait(lambda: True))
        with pytest.raises(BrokenChannel):
            late.result(PATIENCE_S)


class TestStuck:
    """Output 0 is blocked by output 1, which waits for its reader."""

    def blocked(self, task: Task) -> tuple[Future[Any], Switch]:
        blocked = Switch(task)
        answer = task.serve(0, lambda waits: waits.stuck(1, blocked.still))
        task.waiting(0)
        return answer, blocked

    def test_only_when_it_is_wanted(self, make: Make) -> None:
        task = make(2)
        task.serve(1, lambda waits: waits.wait(lambda: True))
        task.waiting(1)
        answer, _ = self.blocked(task)
        assert not answer.done()
        task.say(hungry0=True)
        assert answer.result(PATIENCE_S) is True

    def test_not_while_the_other_works(self, make: Make) -> None:
        task = make(2)
        task.hungry[0] = True
        answer, blocked = self.blocked(task)
        assert not answer.done()
        blocked.off()
        assert answer.result(PATIENCE_S) is False

    def test_nor_while_it_has_been_let_go_on_and_has_not_run_yet(self, make: Make) -> None:
        task = make(2)
        task.hungry[0] = True
        reader = Switch(task)
        reader._on = False  # its reader is back, whatever the note of its wait says
        with task.waits.changed:
            task.waits._waiting[1] = _Wait(reader.still)
        answer, blocked = self.blocked(task)
        assert not answer.done()
        blocked.off()
        assert answer.result(PATIENCE_S) is False

    def test_nor_while_it_waits_for_input(self, make: Make) -> None:
        task, announced = make(2), threading.Event()
        task.hungry[0] = True
        task.serve(1, lambda waits: waits.begin(lambda: True, announced.set)).result(PATIENCE_S)
        answer, blocked = self.blocked(task)
        assert announced.wait(PATIENCE_S)  # the hunger of who waits for it is passed on
        assert not answer.done()
        task.serve(1, lambda waits: waits.end()).result(PATIENCE_S)
        blocked.off()
        assert answer.result(PATIENCE_S) is False

    def test_through_others(self, make: Make) -> None:
        """0 waits for 1, 1 for 2, and 2 for its reader; 3 is busy, and nobody waits for it."""
        task = make(4)
        task.serve(2, lambda waits: waits.wait(lambda: True))
        task.waiting(2)
        middle = task.serve(1, lambda waits: waits.wait(lambda: True, (2,)))
        task.waiting(1)
        answer, _ = self.blocked(task)
        assert not answer.done()
        task.say(hungry0=True)
        assert answer.result(PATIENCE_S) is True
        assert not middle.done()

    def test_a_ring_is_stuck(self, make: Make) -> None:
        task = make(2)
        task.hungry[1] = True
        other = task.serve(1, lambda waits: waits.stuck(0, lambda: True))
        task.waiting(1)
        task.serve(0, lambda waits: waits.wait(lambda: True, (1,)))
        assert other.result(PATIENCE_S) is True

    def test_by_any_of_the_others(self, make: Make) -> None:
        task = make(3)
        task.hungry[0] = True
        task.serve(1, lambda waits: waits.wait(lambda: True))
        task.waiting(1)
        blocked = Switch(task)
        answer = task.serve(0, lambda waits: waits.stuck(-1, blocked.still))
        task.waiting(0)
        assert not answer.done()  # 2 works
        task.serve(2, lambda waits: waits.leave()).result(PATIENCE_S)
        assert answer.result(PATIENCE_S) is True

    def test_not_before_the_last_word_of_every_reader_was_heard(self, make: Make) -> None:
        """A reader that has left may have said so, and the thread that listens not have run yet."""
        task = make(2)
        reader, said = Switch(task), [0, 1]

        def look(output: int) -> bool:
            if not said[output]:
                return False
            said[output] = 0
            reader.off()
            return True

        task.waits._look = [partial(look, output) for output in range(2)]
        task.serve(1, lambda waits: waits.wait(reader.still))
        task.waiting(1)
        task.hungry[0] = True
        answer, blocked = self.blocked(task)
        assert not answer.done()
        assert said == [0, 0]
        blocked.off()
        assert answer.result(PATIENCE_S) is False

    def test_nor_of_a_run_that_is_shut_meanwhile(self, make: Make) -> None:
        task = make(2)

        def look() -> bool:
            task.waits.fail(BrokenChannel("shut"))
            return True

        task.waits._look = [look]
        task.serve(1, lambda waits: waits.wait(lambda: True))
        task.waiting(1)
        task.hungry[0] = True
        answer = task.serve(0, lambda waits: waits.stuck(1, lambda: True))
        with pytest.raises(BrokenChannel):
            answer.result(PATIENCE_S)

    def test_between_epochs_nobody_leaves(self, make: Make) -> None:
        task = make(2)
        task.left[0] = True
        blocked = Switch(task)
        answer = task.serve(0, lambda waits: waits.stuck_between(1, blocked.still))
        task.waiting(0)
        task.say(hungry0=True)
        assert not answer.done()
        blocked.off()
        assert answer.result(PATIENCE_S) is False


class TestLeaving:
    def test_ends_every_wait_for_others(self, make: Make) -> None:
        task = make(3)
        waiting = [
            task.serve(0, lambda waits: waits.stuck(2, lambda: True)),
            task.serve(1, lambda waits: waits.follow(2, lambda: True)),
        ]
        task.waiting(0, 1)
        task.say(left0=True, left1=True)
        for one in waiting:
            with pytest.raises(EpochSkipped):
                one.result(PATIENCE_S)

    def test_not_of_what_others_read_too(self, make: Make) -> None:
        """It cannot be broken off: it goes beyond what is usually kept, to be done with it."""
        task = make(2)
        task.serve(1, lambda waits: waits.wait(lambda: True))
        task.waiting(1)

        def act(waits: Waits) -> tuple[int, bool, bool, bool]:
            before = waits.pressed()
            puller = waits.pull()
            vain = waits.stuck(1, lambda: True)
            pressed = waits.pressed()
            waits.pulled()
            return puller, before, vain, pressed

        answer = task.serve(0, act)
        task.waiting(0)
        task.say(left0=True, hungry0=True)
        assert answer.result(PATIENCE_S) == (0, False, False, True)

    def test_presses_whom_it_waits_for(self, make: Make) -> None:
        """0 was left and waits for what 1 makes, for something that others read; 1 is blocked."""
        task = make(3)
        task.serve(2, lambda waits: waits.wait(lambda: True))
        task.waiting(2)
        answer = task.serve(1, lambda waits: waits.stuck(2, lambda: True))
        task.waiting(1)

        def act(waits: Waits) -> None:
            waits.pull()
            waits.follow(1, lambda: not answer.done())
            waits.pulled()

        waiting = task.serve(0, act)
        task.waiting(0)
        assert not answer.done()
        task.say(left0=True, hungry0=True)
        assert answer.result(PATIENCE_S) is False
        task.say()
        assert waiting.result(PATIENCE_S) is None

    def test_an_output_that_is_over_is_waited_for_by_nobody(self, make: Make) -> None:
        task = make(2)
        task.hungry[0] = True
        blocked = Switch(task)
        answer = task.serve(0, lambda waits: waits.stuck(1, blocked.still))
        task.waiting(0)
        assert not answer.done()
        task.serve(1, lambda waits: waits.leave()).result(PATIENCE_S)
        assert answer.result(PATIENCE_S) is True


class TestHunger:
    def test_is_passed_on_only_by_who_is_wanted(self, make: Make) -> None:
        task, announced = make(2), threading.Event()
        task.serve(1, lambda waits: waits.begin(lambda: True, announced.set)).result(PATIENCE_S)
        task.say()
        assert not announced.is_set()
        task.say(hungry1=True)
        assert announced.is_set()

    def test_of_a_thread_that_serves_nobody_is_its_own(self, make: Make) -> None:
        task = make(1)
        task.waits.begin(lambda: True)  # this thread only helps
        assert not task.waits._waiting
        task.waits.end()
