"""The form that builds an iteration, without a browser."""

from __future__ import annotations

from typing import Any

import pytest

from splitpipe.server.iterations.description import IterationSpec
from splitpipe.server.pages import building
from splitpipe.server.pages.forms import Form
from splitpipe.server.pages.parameters import Known, Parameter, typed

LONG = Known(
    "long_enough",
    "filter",
    "Keep what is long.",
    (
        Parameter("least", "int", 10),
        Parameter("strict", "bool", default=False),
        Parameter("unit", "choice", "words", choices=("words", "letters")),
        Parameter("names", "list", []),
        Parameter("ratio", "float", required=True),
    ),
)
ODD = Known("odd", "filter")
PAD = Known("pad", "collater")
KINDS = building.by_kind([LONG, ODD, PAD])


def spec_of(*pairs: tuple[str, str]) -> tuple[IterationSpec | None, dict[str, str]]:
    form = Form([("dataset", "news"), *pairs])
    return building.spec_of(form, building.rows_of(form), KINDS)


class TestFromAForm:
    def test_what_is_left_empty_has_its_default(self) -> None:
        spec, wrong = spec_of(("seed", ""), ("shuffle", ""), ("batch_size", ""))
        assert not wrong
        assert spec == IterationSpec.model_validate({"dataset": "news"})

    def test_every_field(self) -> None:
        told: dict[str, Any] = {
            "dataset": "news",
            "columns": ["text", "label"],
            "where": "label > 1",
            "decode": True,
            "shuffle": "binwise",
            "window": 2,
            "seed": 7,
            "epochs": 3,
            "batch_size": 8,
            "drop_last": True,
            "filters": [
                {"name": "odd", "params": {}},
                {
                    "name": "long_enough",
                    "params": {
                        "least": 4,
                        "strict": True,
                        "unit": "letters",
                        "names": ["a", "ü"],
                        "ratio": 0.5,
                    },
                },
            ],
            "collater": {"name": "pad", "params": {}},
            "max_retry_count": 1,
            "on_error": "skip",
            "skip_budget": 9,
            "workers": 2,
            "world_size": 4,
            "replication_groups": [[0, 1], [2, 3]],
            "ends": "pad",
            "mode": "follow",
            "lease_s": 2.5,
        }
        spec = IterationSpec.model_validate(told)
        form = building.told(spec)
        rows = building.rows_told(spec, KINDS)
        # What the page would send: the fields, and those of every module.
        fields = [
            (f"{slot}.{at}.{key}", text)
            for slot, chosen in rows.items()
            for at, (name, texts) in enumerate(chosen)
            for key, text in {"name": name, **{f"params.{k}": v for k, v in texts.items()}}.items()
        ]
        again = Form([*form.pairs, *fields])
        assert building.spec_of(again, building.rows_of(again), KINDS) == (spec, {})

    @pytest.mark.parametrize(
        ("field", "text"),
        [
            ("seed", "one"),
            ("seed", "-1"),
            ("batch_size", "1.5"),
            ("lease_s", "soon"),
            ("lease_s", "nan"),
            ("replication_groups", "0,a"),
            ("shuffle", "loudly"),
            ("world_size", "0"),
        ],
    )
    def test_what_is_wrong_is_said_at_its_field(self, field: str, text: str) -> None:
        spec, wrong = spec_of((field, text))
        assert spec is None
        assert list(wrong) == [field]

    def test_what_does_not_go_together_is_said_above_all(self) -> None:
        _, wrong = spec_of(("skip_budget", "3"))
        assert list(wrong) == [""]

    def test_a_parameter_that_is_wrong_is_said_at_its_field(self) -> None:
        _, wrong = spec_of(
            ("filters.0.name", "long_enough"),
            ("filters.0.params.least", "many"),
            ("filters.0.params.names", "[1,"),
        )
        assert set(wrong) == {
            "filters.0.params.least",
            "filters.0.params.names",
            "filters.0.params.ratio",
        }

    def test_a_module_that_is_gone_is_said(self) -> None:
        _, wrong = spec_of(("filters.0.name", "gone"))
        assert list(wrong) == ["filters.0"]

    @pytest.mark.parametrize("deep", ["[" * 100_000, "1" * 5000, "9" * 5000 + "."])
    def test_no_text_is_more_than_wrong(self, deep: str) -> None:
        for kind in ("int", "float", "json"):
            try:
                typed(Parameter("x", kind), deep)
            except ValueError:
                continue


class TestButtons:
    def rows(self) -> building.Rows:
        return building.rows_of(
            Form([("filters.0.name", "odd"), ("filters.1.name", "long_enough")])
        )

    def names(self, action: str, *pairs: tuple[str, str]) -> list[str]:
        rows = self.rows()
        building.act(action, Form(pairs), rows, KINDS)
        return [name for name, _ in rows["filters"]]

    def test_add(self) -> None:
        added = self.names("add:filters", ("filters.new", "odd"))
        assert added == ["odd", "long_enough", "odd"]

    def test_remove(self) -> None:
        assert self.names("remove:filters.0") == ["long_enough"]

    def test_move(self) -> None:
        assert self.names("up:filters.1") == ["long_enough", "odd"]
        assert self.names("down:filters.0") == ["long_enough", "odd"]

    @pytest.mark.parametrize(
        "action",
        [
            "up:filters.0",
            "down:filters.1",
            "remove:filters.7",
            "add:filters",
            "add:nothing",
            "x",
            "",
            "remove:filters.-1",
            "remove:filters.²",
            "up:filters.1.2",
        ],
    )
    def test_what_cannot_be_done_changes_nothing(self, action: str) -> None:
        assert self.names(action, ("filters.new", "pad")) == ["odd", "long_enough"]

    def test_one_collater_at_most(self) -> None:
        rows = building.rows_of(Form([("collater.0.name", "pad")]))
        building.act("add:collater", Form([("collater.new", "pad")]), rows, KINDS)
        assert len(rows["collater"]) == 1
