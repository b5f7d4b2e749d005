"""What is taken ahead of its use, driven by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from splitpipe.errors import ResumeError
from splitpipe.integrations.ahead import Ahead


class Counting:
    """A source that tells how many items were taken from it."""

    def __init__(self, failing: int = -1, unsayable: int = -1, error: BaseException | None = None):
        self.taken = 0
        self._failing = failing
        self._unsayable = unsayable
        self._error = error or ValueError("no")

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.taken == 6:
            raise StopIteration
        self.taken += 1
        if self.taken - 1 == self._failing:
            raise self._error
        return self.taken - 1

    def state(self) -> Mapping[str, Any]:
        if self.taken == self._unsayable:
            raise ResumeError("not here")
        return {"taken": self.taken}


def given(ahead: Ahead[Any]) -> int | None:
    state = ahead.state()
    return None if state is None else state["taken"]


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_everything_in_order_and_a_state_of_what_was_given(count: int) -> None:
    source = Counting()
    ahead = Ahead(str, count, source.state)
    for step in range(6):
        assert ahead.next_of(source) == str(step)
        assert source.taken == min(step + 1 + count, 6)
        assert len(ahead) == source.taken - step - 1
        assert given(ahead) == (step + 1 if len(ahead) else None)
    with pytest.raises(StopIteration):
        ahead.next_of(source)


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_an_error_has_its_place(count: int) -> None:
    source = Counting(failing=3)
    ahead = Ahead(str, count, source.state)
    assert [ahead.next_of(source) for _ in range(3)] == ["0", "1", "2"]
    assert given(ahead) == (3 if count else None)
    with pytest.raises(ValueError, match="no"):
        ahead.next_of(source)
    assert [ahead.next_of(source) for _ in range(2)] == ["4", "5"]


def test_what_cannot_be_made_ready_fails_in_its_place() -> None:
    ahead = Ahead(lambda item: 1 // (item - 2), 2, None)
    source = iter(range(4))
    assert [ahead.next_of(source) for _ in range(2)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        ahead.next_of(source)
    assert ahead.next_of(source) == 1


def test_a_state_that_cannot_be_said_is_no_error_of_the_stream() -> None:
    source = Counting(unsayable=1)
    ahead = Ahead(str, 1, source.state)
    assert ahead.next_of(source) == "0"
    with pytest.raises(ResumeError):
        ahead.state()
    assert ahead.next_of(source) == "1"
    assert given(ahead) == 2


def test_an_interruption_passes_at_once() -> None:
    source = Counting(failing=2, error=KeyboardInterrupt())
    ahead = Ahead(str, 2, source.state)
    with pytest.raises(KeyboardInterrupt):
        ahead.next_of(source)
    assert [ahead.next_of(source) for _ in range(2)] == ["0", "1"]


def test_cleared() -> None:
    ahead = Ahead(str, 2, None)
    source = iter(range(6))
    ahead.next_of(source)
    ahead.clear()
    assert len(ahead) == 0
    assert ahead.next_of(source) == "3"
