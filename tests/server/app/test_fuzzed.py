"""Everything that the OpenAPI document allows, and much that it forbids: no 500, and it is true."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.server.serving import Served, run_splitpipe, serving

pytestmark = pytest.mark.filterwarnings("ignore")  # of the tool's own packages

FEW, MANY = 8, 150


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("fuzzed") / "root"
    done = run_splitpipe("keys", str(root), "--token", "fuzz", "--json")
    token = json.loads(done.stdout)["token"]
    options = ("--require-token", "--rate", "100000", "--log-level", "warning")
    with serving(root, *options, token=token) as server:
        yield server
        server.stop()
        assert "unforeseen error" not in server.log, server.log[-8000:]


@pytest.fixture(scope="module")
def document(guarded: Served) -> Any:
    return schemathesis.openapi.from_dict(guarded.json("GET", "/openapi.json"))


def fuzz(server: Served, document: Any, examples: int) -> int:
    """Try every operation with values that fit, and with values that do not; return how many."""
    asked = 0
    for found in document.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:

            @hypothesis.settings(
                max_examples=examples,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.generate, Phase.shrink],
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal asked
                asked += 1
                headers = {"Authorization": f"Bearer {server.token}"}
                case.call_and_validate(
                    base_url=server.url,
                    headers=headers,
                    timeout=120,
                    # The first tries wrong tokens until the server does not listen to them any
                    # more: test_door.py has that. What a location may be no pattern can say.
                    excluded_checks=[ignored_auth, positive_data_acceptance],
                )

            with contextlib.suppress(hypothesis.errors.Unsatisfiable):
                ask()
    return asked


@pytest.mark.long
@pytest.mark.deadline(240)
def test_every_operation(guarded: Served, document: Any) -> None:
    assert fuzz(guarded, document, FEW) > 100


@pytest.mark.long
@pytest.mark.deadline(1800)
@pytest.mark.skipif("SPLITPIPE_LONG" not in os.environ, reason="takes long; set SPLITPIPE_LONG")
def test_every_operation_many_times(guarded: Served, document: Any) -> None:
    assert fuzz(guarded, document, MANY) > 1000
