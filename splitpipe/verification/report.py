"""What a verification found.

Responsible for: `Check`, the outcome of one promise, and `Verification`, all of them, as values, as
text and as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Check", "Outcome", "Verification"]

Outcome: TypeAlias = Literal["kept", "broken", "not checked"]


@dataclass(frozen=True)
class Check:
    """One promise, and whether it was kept.

    Attributes:
        name: of the promise.
        outcome: ``"kept"``, ``"broken"``, or ``"not checked"``.
        detail: what was compared; what is wrong; why nothing was checked.
        stage: the stage, or source, that a broken promise begins with; None where that could not be
            told.
        advice: what it probably does, and what to try.
        seconds: that it took.

    Example:
        >>> import splitpipe as sp
        >>> from splitpipe.verification import verify
        >>> found = verify(sp.Pipeline(range(9)), checks=["repeat"])
        >>> found.checks[0].name, found.checks[0].outcome
        ('repeat', 'kept')
    """

    name: str
    outcome: Outcome
    detail: str = ""
    stage: str | None = None
    advice: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Verification:
    """What `verify` found; true in an ``if`` exactly if no promise was broken.

    Attributes:
        pipeline: what was verified, in words.
        checks: every promise that was asked for.
        items: of an epoch that were compared at most.
        epochs: that were compared.
        whole: whether that was all of each epoch.
        seed: of the graph.
        seconds: that it took.
        failure: the error with which the graph itself ends; None where it does not.

    Example:
        >>> import splitpipe as sp
        >>> found = sp.verify(sp.Pipeline(range(6)).batch(2), checks=["repeat", "once"])
        >>> found.ok, [check.outcome for check in found.checks]
        (True, ['kept', 'kept'])
    """

    pipeline: str
    checks: tuple[Check, ...]
    items: int
    epochs: int
    whole: bool
    seed: int
    seconds: float
    failure: str | None = None

    @property
    def ok(self) -> bool:
        """Whether no promise was broken."""
        return not self.broken

    @property
    def broken(self) -> tuple[Check, ...]:
        """The promises that were not kept."""
        return tuple(check for check in self.checks if check.outcome == "broken")

    @property
    def unchecked(self) -> tuple[Check, ...]:
        """The promises of which nothing is known."""
        return tuple(check for check in self.checks if check.outcome == "not checked")

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages with which broken promises begin."""
        return tuple(dict.fromkeys(check.stage for check in self.broken if check.stage))

    @property
    def extent(self) -> str:
        """How much was compared, in words."""
        what = "all" if self.whole else "the first"
        epochs = f"each of {self.epochs} epochs" if self.epochs > 1 else "one epoch"
        ends = f"; it ends with {self.failure}" if self.failure else ""
        return f"{what} {self.items:,} items of {epochs}, seed {self.seed}{ends}"

    @property
    def text(self) -> str:
        """All of it, for people.

        Example:
            >>> import splitpipe as sp
            >>> print(sp.verify(sp.Pipeline(range(6)), checks=["repeat"]).text)
            Pipeline(range(0, 6))
            all 6 items of each of 2 epochs, seed 0
            kept         repeat: two runs in this process gave the same 12 items
            every promise that was checked is kept
        """
        lines = [self.pipeline, self.extent]
        for check in self.checks:
            where = f" [stage {check.stage!r}]" if check.stage else ""
            lines.append(f"{check.outcome:<12} {check.name}{where}: {check.detail}")
            if check.advice:
                lines.append(f"{'':<12} {check.advice}")
        lines.append(self.verdict)
        return "\n".join(lines)

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        left = len(self.unchecked)
        rest = f"; {left} not checked" if left else ""
        if self.ok:
            return f"every promise that was checked is kept{rest}"
        by = f", by {', '.join(map(repr, self.stages))}" if self.stages else ""
        return f"{len(self.broken)} of {len(self.checks)} promises broken{by}{rest}"

    def to_json(self) -> dict[str, Any]:
        """Return it as data."""
        return {**asdict(self), "ok": self.ok, "stages": list(self.stages)}

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return self.text
