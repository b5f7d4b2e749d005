"""Exceptions on their way: what they were, or a word for it, and never nothing."""

from __future__ import annotations

from typing import Any

import pytest

import splitpipe as sp
from splitpipe.runtime.failure import Failure, annotate


class Positional(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.sum = a + b


class KeywordOnly(Exception):
    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path = path

    def __str__(self) -> str:
        return f"at {self.path}"


class Changing(Exception):
    """Comes back as something else."""

    def __reduce__(self) -> Any:
        return ValueError, ("changed",)


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("with a generator")
        self.state = (i for i in ())


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def travelled(error: BaseException, where: tuple[str, ...] = ("here",)) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return Failure.decode(Failure.of(caught, where=where).encode()).rebuild()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("k"),
        OSError(2, "gone", "file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        Positional(1, 2),
        KeywordOnly(path="p"),
        ExceptionGroup("g", [ValueError(1), ExceptionGroup("h", [KeyError(2)])]),
        sp.CorruptRecord("record 3"),
        sp.StageFailed("x"),
        AssertionError(),
        RecursionError(),
        MemoryError(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_keeps_type_text_arguments_and_state(error: Exception) -> None:
    back = travelled(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {k: v for k, v in vars(back).items() if k != "__notes__"} == vars(error)
    assert back.__notes__[0] == "here"
    assert "traceback in the worker" in back.__notes__[1]
    assert "raise error" in back.__notes__[1]


@pytest.mark.parametrize("error", [Changing("x"), Unpicklable()], ids=lambda e: type(e).__name__)
def test_what_cannot_travel_is_told(error: Exception) -> None:
    back = travelled(error)
    assert type(back) in (sp.StageFailed, type(error))
    assert str(error) in str(back)
    assert back.__notes__[0] == "here"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_control_flow_becomes_a_failure(kind: type[BaseException]) -> None:
    back = travelled(kind("why"))
    assert type(back) is sp.StageFailed
    assert str(back) == f"a stage raised {kind.__name__}: why"


def test_an_exception_without_words() -> None:
    back = travelled(Mute())
    assert type(back) is Mute
    assert "no words" not in back.__notes__[0]


def test_its_own_notes_come_first_and_stay() -> None:
    error = ValueError("x")
    error.add_note("from the stage")
    assert travelled(error).__notes__[:2] == ["from the stage", "here"]


def test_causes_are_in_the_remote_traceback() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as outer:
        back = travelled(outer)
    assert "KeyError: 'inner'" in back.__notes__[-1]


def test_annotating_twice_changes_nothing() -> None:
    error = ValueError()
    annotate(error, ["a", "b"])
    annotate(error, ["b", "a"])
    assert error.__notes__ == ["a", "b"]
