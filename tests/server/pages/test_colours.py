"""Whether everything that is written can be read: contrast of the look's own colours."""

from __future__ import annotations

import re

import pytest

from splitpipe.server.pages.rendering import ASSETS

CSS = (ASSETS / "page.css").read_text(encoding="utf-8")

GROUNDS = ("ground", "surface", "raised")
TEXTS = ("text", "muted", "accent", "accent-strong", "good", "warn", "bad")
ON_SOFT = (("accent", "accent-soft"), ("good", "good-soft"), ("warn", "warn-soft"))
ON_SOFT += (("bad", "bad-soft"), ("text", "good-soft"), ("text", "warn-soft"), ("text", "bad-soft"))
ON_SOFT += (("muted", "warn-soft"), ("muted", "bad-soft"), ("on-accent", "accent"))
ON_SOFT += (("on-accent", "accent-strong"),)
SHAPES = ("line-strong", "bar-busy", "bar-wait-in", "bar-wait-out", "accent")


def tokens(scheme: str) -> dict[str, tuple[int, int, int]]:
    """The colours of a scheme by name; the dark one changes what it names and keeps the rest."""
    light, dark = re.findall(r":root \{(.*?)\n\s*\}", CSS, re.DOTALL)[:2]
    found = {}
    for block in (light, dark) if scheme == "dark" else (light,):
        for name, digits in re.findall(r"--([\w-]+): #([0-9a-f]{6});", block):
            found[name] = tuple(int(digits[at : at + 2], 16) for at in (0, 2, 4))
    return found


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance, as WCAG 2.2 defines it."""
    parts = [value / 255 for value in colour]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The ratio of contrast, as WCAG 2.2 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_is_right() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_can_be_read_on_every_ground(scheme: str, ground: str, text: str) -> None:
    found = tokens(scheme)
    assert contrast(found[text], found[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), ON_SOFT)
def test_text_can_be_read_on_its_own_ground(scheme: str, text: str, ground: str) -> None:
    found = tokens(scheme)
    assert contrast(found[text], found[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_stand_out(scheme: str, shape: str) -> None:
    # A bar is told by its numbers, too; WCAG asks 3 of what is told by its shape alone.
    found = tokens(scheme)
    assert contrast(found[shape], found["surface"]) >= (2.5 if shape == "bar-wait-in" else 3)


def test_nothing_below_the_tokens_names_a_colour() -> None:
    rules = CSS.split("*::after {", 1)[1]
    found = re.findall(r"#[0-9a-fA-F]{3,8}\b|\brgba?\(|\bhsl", rules)
    assert found == ["#000"], "a colour that the dark scheme does not know"


def test_the_look_asks_nothing_of_anywhere() -> None:
    for path in ASSETS.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path.name
        assert "@import" not in text
        assert "url(" not in text
