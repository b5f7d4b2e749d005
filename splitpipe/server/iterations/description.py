"""What an iteration is asked to be.

Responsible for: `IterationSpec`, the body of a request and what is stored of an iteration.

Rules:
- a value: nothing is opened, looked up or imported here; whether there is such a dataset, column or
  module is found out where the iteration is made;
- every field has its bounds and a sentence that says what it does; a field that nobody knows is
  refused;
- two descriptions that are equal have the same `fingerprint`, whoever wrote them down, and in
  whatever order.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

__all__ = ["IterationSpec", "ModuleRef"]

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)

_Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]


class ModuleRef(BaseModel):
    """A module by its name, with values for its parameters.

    Example:
        >>> ModuleRef(name="long_enough", params={"least": 10}).params
        {'least': 10}
    """

    model_config = _STRICT

    name: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]{0,99}$",
        description="What the module is registered as.",
    )
    params: dict[str, JsonValue] = Field(
        default_factory=dict, max_length=100, description="Values for its parameters, by name."
    )


class IterationSpec(BaseModel):
    """What an iteration gives, in which order, and to whom.

    Raises:
        ValidationError: a field means nothing, or two of them do not go together. (pydantic's: a
            ValueError.)

    Example:
        >>> spec = IterationSpec(dataset="news", batch_size=32, shuffle="global", seed=1)
        >>> spec.world_size, spec.groups
        (1, [[0]])
    """

    model_config = _STRICT

    dataset: _Name = Field(description="Name or id of the dataset.")
    columns: list[_Name] | None = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="Columns that are read; null: all.",
    )
    where: str | None = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="An expression of SQL over columns, and keys and metadata where there are any: "
        "only the records for which it is true; null: all.",
    )
    decode: bool = Field(
        default=False, description="Whether images, audio and video come decoded, as arrays."
    )
    shuffle: Literal["global", "binwise"] | None = Field(
        default=None,
        description='"global": a permutation of everything; "binwise": bins in random order, and '
        "records in random order inside of each; null: as they are stored.",
    )
    window: int = Field(
        default=1, ge=1, le=1_000_000, description="Bins that a binwise order mixes at a time."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Of the order, and of what modules draw."
    )
    epochs: int = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="How often the dataset is gone through, shuffled anew.",
    )
    batch_size: int = Field(
        default=1,
        ge=0,
        le=1_000_000,
        description="Samples a batch; 0: samples by themselves, not collated.",
    )
    drop_last: bool = Field(
        default=False,
        description="Whether batches that are not full at the end of an epoch are left out; their "
        "samples count as filtered.",
    )
    filters: list[ModuleRef] = Field(
        default_factory=list, max_length=100, description="Each says of a sample whether it stays."
    )
    categorizer: ModuleRef | None = Field(
        default=None,
        description="Says of a sample what it is batched with. Batches of a category come when "
        "they are full; what is left of all of them at the end of the epoch.",
    )
    collater: ModuleRef | None = Field(
        default=None, description="Makes a batch of a list of samples; null: arrays are stacked."
    )
    preprocessors: list[ModuleRef] = Field(
        default_factory=list, max_length=100, description="Make of a batch what is delivered."
    )
    waiting_nbytes: int = Field(
        default=1 << 30,
        ge=1,
        lt=2**63,
        description="Most bytes of samples that wait for the batch of their category to be full; "
        "beyond it the iteration ends with an error that says so.",
    )
    max_retry_count: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Tries after the first, of what fails to be read or made.",
    )
    on_error: Literal["raise", "skip"] = Field(
        default="raise",
        description='What becomes of samples and batches that fail: "raise": the iteration ends '
        'there; "skip": they are left out, and counted as failed.',
    )
    skip_budget: int | None = Field(
        default=None,
        ge=0,
        description="Most samples that may fail, with on_error skip; null: any number.",
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Processes that make batches; 0: the iteration's own one.",
    )
    world_size: int = Field(default=1, ge=1, le=65_536, description="Ranks of the training.")
    replication_groups: list[list[int]] | None = Field(
        default=None,
        description="Ranks that get the same batches, each rank in one group; null: every rank "
        "gets batches of its own.",
    )
    ends: Literal["uneven", "drop", "pad"] = Field(
        default="uneven",
        description='A last round of batches that does not reach all ranks: "uneven": some get one '
        'more; "drop": nobody gets any of it; "pad": batches of it come twice.',
    )
    mode: Literal["share", "follow"] = Field(
        default="share",
        description='Several clients of one rank: "share": each batch goes to one of them; '
        '"follow": every client gets all.',
    )
    lease_s: float = Field(
        default=30.0,
        ge=0.1,
        le=86_400.0,
        allow_inf_nan=False,
        description="A client that is not heard of for so many seconds gives back what it holds.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns names one twice: {self.columns}")
        if self.batch_size == 0:
            for field in ("collater", "categorizer"):
                if getattr(self, field) is not None:
                    raise ValueError(f"a {field} is about batches; give batch_size at least 1")
        if self.skip_budget is not None and self.on_error != "skip":
            raise ValueError('skip_budget is for on_error="skip"')
        if self.window != 1 and self.shuffle != "binwise":
            raise ValueError('window is for shuffle="binwise"')
        self._check_groups()
        return self

    def _check_groups(self) -> None:
        if self.replication_groups is None:
            return
        ranks = sorted(rank for group in self.replication_groups for rank in group)
        if ranks != list(range(self.world_size)) or not all(self.replication_groups):
            raise ValueError(
                "replication_groups must have every rank from 0 to world_size - 1 in exactly one "
                f"group, and no group without a rank; not {self.replication_groups} for "
                f"world_size={self.world_size}"
            )

    @property
    def groups(self) -> list[list[int]]:
        """The ranks of every group; each rank is one by itself unless they are replicated."""
        if self.replication_groups is not None:
            return self.replication_groups
        return [[rank] for rank in range(self.world_size)]

    @property
    def fingerprint(self) -> str:
        """Stands for all that the iteration is.

        Example:
            >>> one, other = IterationSpec(dataset="a"), IterationSpec(dataset="a", seed=0)
            >>> one.fingerprint == other.fingerprint
            True
        """
        told = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(told.encode()).hexdigest()
