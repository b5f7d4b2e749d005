"""What the pages ask of the service, one function each.

Responsible for: every call that leaves this package, and its answer as plain values.

Rules: no decisions: what is allowed, what fits and what it costs is the service's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from splitpipe.server.iterations.description import IterationSpec
from splitpipe.server.pages.parameters import Known, Parameter

__all__ = ["Calls"]

Json = dict[str, Any]


class Calls:
    """The service as the pages see it.

    Args:
        service: The one that the REST interface calls, too.
    """

    def __init__(self, service: Any) -> None:
        self._service = service

    def closing(self) -> bool:
        """Whether the server is on its way out."""
        return bool(self._service.ending.is_set())

    # -- datasets --------------------------------------------------------------------------

    def datasets(self) -> Sequence[Json]:
        """All datasets with their column sets."""
        found: Sequence[Json] = self._service.datasets.list()
        return found

    def dataset(self, name: str) -> Json:
        """One, with what its join makes of it."""
        told: Json = self._service.datasets.describe(name)
        return told

    def dataset_briefly(self, name: str) -> Json:
        """One, without looking at its files."""
        told: Json = self._service.datasets.get(name)
        return told

    def create_dataset(self, name: str, *, uid_column: str | None, join: str) -> None:
        """Make one without column sets."""
        self._service.datasets.create(name, uid_column=uid_column, join=join)

    def delete_dataset(self, name: str, *, remove_data: bool) -> None:
        """Forget one."""
        self._service.datasets.delete(name, remove_data=remove_data)

    def add_column_set(
        self, dataset: str, name: str, *, location: str, format: str, columns: Json | None
    ) -> bool:
        """Add columns that lie somewhere; gives whether a task still looks at them."""
        told: tuple[Json, bool] = self._service.add_column_set(
            dataset, name, location=location, format=format, columns=columns
        )
        return told[1]

    def remove_column_set(self, dataset: str, name: str, *, remove_data: bool) -> None:
        """Forget a column set."""
        self._service.datasets.remove_column_set(dataset, name, remove_data=remove_data)

    def preview(self, dataset: str, offset: int, limit: int, columns: Sequence[str]) -> Json:
        """Some records."""
        shown: Json = self._service.datasets.preview(
            dataset, offset=offset, limit=limit, columns=list(columns)
        )
        return shown

    def statistics(self, dataset: str) -> Json | None:
        """What was counted last, or None."""
        found: Json | None = self._service.datasets.statistics(dataset)
        return found

    def sync(self, dataset: str, column_set: str) -> str:
        """Look at a location again; the task's id."""
        return self._started("sync", {"dataset": dataset, "column_set": column_set})

    def count_statistics(self, dataset: str) -> str:
        """Count anew; the task's id."""
        return self._started("statistics", {"dataset": dataset})

    def check(self, dataset: str) -> str:
        """Read every value; the task's id."""
        return self._started("check", {"dataset": dataset})

    def preprocess(self, dataset: str, body: Json) -> str:
        """Make a new column set; the task's id."""
        return self._started("preprocess", {"dataset": dataset, **body})

    # -- iterations ------------------------------------------------------------------------

    def iterations(self) -> Sequence[Json]:
        """All iterations with their progress, the newest first."""
        found: Sequence[Json] = self._service.iterations.list()
        return found

    def iteration(self, identity: str) -> Json:
        """One, with its progress."""
        told: Json = self._service.iterations.get(identity)
        return told

    def create_iteration(self, spec: IterationSpec, name: str | None) -> str:
        """Make one, or find the one with this name; its id."""
        return str(self._service.iterations.create(spec, name=name)["id"])

    def start(self, identity: str) -> None:
        """Go on with one."""
        self._service.iterations.start(identity)

    def stop(self, identity: str) -> None:
        """End one until it is started again."""
        self._service.iterations.stop(identity)

    def pushback(self, identity: str) -> None:
        """Take back what was not acknowledged."""
        self._service.iterations.push_back(identity)

    def delete_iteration(self, identity: str) -> None:
        """Forget one."""
        self._service.iterations.delete(identity)

    def try_out(self, spec: IterationSpec, count: int) -> Json:
        """The first batches, as values that can be shown, and what ended them."""
        told: Json = self._service.try_out(spec, count=count)
        return told

    # -- tasks, modules, tokens ------------------------------------------------------------

    def tasks(self) -> Sequence[Json]:
        """All tasks, the newest first."""
        return [_plain(task) for task in self._service.tasks.list()]

    def task(self, identity: str) -> Json:
        """One task."""
        return _plain(self._service.tasks.get(identity))

    def abort(self, identity: str) -> None:
        """End one."""
        self._service.tasks.abort(identity)

    def _started(self, kind: str, params: Json) -> str:
        return str(self._service.start(kind, **params)["id"])

    def modules(self) -> list[Known]:
        """What the operator has placed."""
        return [_known(one) for one in self._service.modules.list()["modules"]]

    def module_errors(self) -> list[Json]:
        """Files that could not be imported."""
        return [
            {"file": one["file"], "error": one["error"], "traceback": one.get("traceback") or ""}
            for one in self._service.modules.list()["errors"]
        ]

    def modules_folder(self) -> str:
        """Where the operator places them."""
        return str(self._service.settings.modules)

    def reload_modules(self) -> None:
        """Load them anew."""
        self._service.modules.reload()

    def tokens(self) -> list[Json]:
        """All tokens, without their texts."""
        return [_plain(token) for token in self._service.tokens.list()]

    def create_token(self, name: str, *, role: str, expires_in_s: float | None) -> Json:
        """Make one; the one answer that has its text, under ``"token"``."""
        made, text = self._service.tokens.create(name, role=role, expires_in_s=expires_in_s)
        return {**_plain(made), "token": text}

    def revoke_token(self, identity: str) -> None:
        """Make one worthless."""
        self._service.tokens.delete(identity)

    def is_good(self, token: str) -> bool:
        """Whether a token is one."""
        return self._service.tokens.check(token) is not None


def _plain(value: Any) -> Json:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(value)


def _known(told: Mapping[str, Any]) -> Known:
    return Known(
        name=told["name"],
        kind=told["kind"],
        doc=told.get("doc") or "",
        parameters=tuple(_parameter(one) for one in told.get("parameters") or ()),
        file=told.get("file") or "",
    )


def _parameter(told: Mapping[str, Any]) -> Parameter:
    choices = told.get("choices")
    return Parameter(
        name=told["name"],
        type=told["type"],
        default=told.get("default"),
        required=bool(told.get("required")),
        choices=tuple(choices) if choices else None,
        doc=told.get("doc") or "",
    )
