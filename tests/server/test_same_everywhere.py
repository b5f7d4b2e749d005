"""What the page does the client and the terminal do: no button without its command."""

from __future__ import annotations

from typing import Any

from fastapi.routing import APIRoute

from splitpipe.cli.client_datasets import COLUMN_SET_COMMANDS, DATASET_COMMANDS, TASK_COMMANDS
from splitpipe.cli.client_runs import ITERATION_COMMANDS, MODULE_COMMANDS, TOKEN_COMMANDS
from splitpipe.client import connect
from splitpipe.server.pages import pages

NAMES = {
    "datasets": DATASET_COMMANDS,
    "column-sets": COLUMN_SET_COMMANDS,
    "iterations": ITERATION_COMMANDS,
    "tasks": TASK_COMMANDS,
    "modules": MODULE_COMMANDS,
    "tokens": TOKEN_COMMANDS,
}
METHODS = {"statistics": "start_statistics", "try": "try_out"}
"""Of the client, where they are not called as the verb is."""

FORMS = {
    "/datasets": "datasets create",
    "/datasets/{name}/delete": "datasets delete",
    "/datasets/{name}/check": "datasets check",
    "/datasets/{name}/statistics": "datasets statistics",
    "/datasets/{name}/preprocess": "datasets preprocess",
    "/datasets/{name}/column-sets": "column-sets add",
    "/datasets/{name}/column-sets/{column_set}/sync": "column-sets sync",
    "/datasets/{name}/column-sets/{column_set}/remove": "column-sets remove",
    "/iterate": "iterations create, iterations try, iterations snippet",
    "/iterations/{identity}/pushback": "iterations pushback",
    "/iterations/{identity}/stop": "iterations stop",
    "/iterations/{identity}/start": "iterations start",
    "/iterations/{identity}/delete": "iterations delete",
    "/tasks/{identity}/abort": "tasks abort",
    "/modules/reload": "modules reload",
    "/tokens": "tokens create",
    "/tokens/{identity}/revoke": "tokens delete",
    "/login": "",
    "/logout": "",
}
"""What forms of the page are sent to, and the commands that do the same."""


class Nobody:
    """Stands for a service that is never asked: routes are looked at, not used."""

    def __getattr__(self, name: str) -> Any:
        return self


def test_a_form_has_its_command_and_its_call() -> None:
    forms = {
        route.path
        for route in pages(Nobody()).routes
        if isinstance(route, APIRoute) and "POST" in route.methods
    }
    assert forms == set(FORMS)
    with connect("http://127.0.0.1:1") as client:
        parts = {name: getattr(client, name) for name in NAMES if name != "column-sets"}
        parts["column-sets"] = client.datasets.column_sets
        for commands in filter(None, FORMS.values()):
            for command in commands.split(", "):
                noun, verb = command.split()
                assert verb in NAMES[noun], command
                assert callable(getattr(parts[noun], METHODS.get(verb, verb))), command
