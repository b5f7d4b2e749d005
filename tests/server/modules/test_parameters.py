"""Parameters of modules: described, and held against values, by two who must agree."""

import enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from splitpipe.errors import InvalidRequest
from splitpipe.server.modules import categorizer, filter
from splitpipe.server.modules.checking import check_params
from splitpipe.server.modules.parameters import arguments_of, parameters_of


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


def typed(
    sample: Any,
    *,
    whole: int = 3,
    part: float = 0.5,
    text: str = "a",
    yes: bool = False,
    choice: Literal["a", "b"] = "a",
    color: Color = Color.RED,
    some: list[int] | None = None,
    table: dict[str, float] = {},  # noqa: B006
    few: Annotated[int, Field(ge=1, le=9)] = 1,
    pair: tuple[int, str] = (1, "x"),
    either: int | str = 1,
    colors: list[Color] = [],  # noqa: B006
    plain=7,
    anything=None,
) -> Any:
    return locals()


GOOD = [
    ("whole", 4),
    ("part", 1),
    ("part", 1.5),
    ("text", "b"),
    ("yes", True),
    ("choice", "b"),
    ("color", "blue"),
    ("some", None),
    ("some", [1, 2]),
    ("table", {"a": 1.5}),
    ("few", 9),
    ("pair", [2, "y"]),
    ("either", "x"),
    ("either", 2),
    ("colors", ["red"]),
    ("plain", 8),
    ("anything", {"a": [1, None]}),
]
BAD = [
    ("whole", "4", "whole number"),
    ("whole", 1.5, "whole number"),
    ("whole", True, "whole number"),
    ("part", "1", "number"),
    ("text", 1, "text"),
    ("yes", 1, "true or false"),
    ("choice", "c", "one of 'a', 'b'"),
    ("color", "green", "one of 'red', 'blue'"),
    ("some", [1, "2"], "whole number"),
    ("some", "12", "list"),
    ("table", {"a": "b"}, "number"),
    ("few", 0, "at least 1"),
    ("few", 10, "at most 9"),
    ("pair", [1], "length of at least 2"),
    ("pair", ["x", "y"], "whole number"),
    ("either", None, "whole number"),
    ("colors", ["green"], "one of"),
    ("plain", "8", "whole number"),
    ("other", 1, "has no parameter"),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_takes_what_fits(name: str, value: Any) -> None:
    check_params(parameters_of(typed), {name: value}, "it")
    made = arguments_of(typed, {name: value}, "it")({})[name]
    if name == "color":
        assert made is Color.BLUE
    elif name == "colors":
        assert made == [Color.RED]
    elif name == "pair":
        assert made == (2, "y")
    else:
        assert made == value


@pytest.mark.parametrize(("name", "value", "said"), BAD)
def test_refuses_what_does_not(name: str, value: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match="it") as caught:
        check_params(parameters_of(typed), {name: value}, "it")
    assert said in str(caught.value)
    assert name in str(caught.value)
    with pytest.raises(InvalidRequest, match=name):
        arguments_of(typed, {name: value}, "it")


def test_what_is_needed_is_asked_for() -> None:
    def needs(sample: Any, *, x: int) -> Any:
        return x

    with pytest.raises(InvalidRequest, match="needs its parameter 'x'"):
        check_params(parameters_of(needs), {}, "it")
    with pytest.raises(InvalidRequest, match="needs its parameter 'x'"):
        arguments_of(needs, {}, "it")


def test_says_types_in_one_word() -> None:
    told = {one["name"]: one for one in parameters_of(typed)}
    assert {name: one["type"] for name, one in told.items()} == {
        "whole": "int",
        "part": "float",
        "text": "str",
        "yes": "bool",
        "choice": "choice",
        "color": "choice",
        "some": "list",
        "table": "dict",
        "few": "int",
        "pair": "list",
        "either": "json",
        "colors": "list",
        "plain": "int",
        "anything": "json",
    }
    assert told["color"]["default"] == "red"
    assert told["color"]["choices"] == ["red", "blue"]
    assert told["pair"]["default"] == [1, "x"]


def test_marks_change_nothing() -> None:
    @filter
    def one(sample: Any) -> bool:
        return bool(sample)

    @categorizer
    class Two:
        def __call__(self, sample: Any) -> int:
            return 2

    assert (one(1), one(0), Two()(1)) == (True, False, 2)
