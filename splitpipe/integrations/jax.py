"""Batches as arrays of JAX: placed on devices ahead of their use, over many processes if need be.

Responsible for: `to_jax`. Needs the extra ``jax``.

Rules:
- a value is the value that was read, or an error: JAX without ``jax_enable_x64`` keeps 32 bits of
  an integer and says nothing, here one that does not fit is refused; float64 becomes float32 there,
  as JAX does it;
- what JAX has no type for (text, bytes, dates) stays as it is, on the host;
- a state is that of the batch which was handed out last, whatever was placed ahead of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, Self, TypeAlias

import numpy as np

from splitpipe.errors import FormatError, PipelineError
from splitpipe.integrations.ahead import Ahead, States
from splitpipe.integrations.extras import imported

__all__ = ["JaxBatches", "to_jax"]

_KINDS = "biufc"


class _Sharding(Protocol):
    """A ``jax.sharding.Sharding``."""

    def shard_shape(self, global_shape: tuple[int, ...]) -> tuple[int, ...]: ...


Sharding: TypeAlias = "_Sharding | Callable[[np.ndarray[Any, Any]], _Sharding]"


def to_jax(
    batches: Iterable[Any], *, sharding: Sharding | None = None, prefetch: int = 2
) -> JaxBatches:
    """Batches whose arrays are ``jax.Array``, on their way to the devices while others are used.

    Args:
        batches: a loader, or anything that gives batches: arrays, or dicts, lists and tuples of
            them (pytrees).
        sharding: how arrays lie on devices, or a function from an array to that. With several
            processes each gives its own part, and the arrays are global ones, as
            ``jax.make_array_from_process_local_data`` makes them: let each read its ``shard``, with
            equally many steps. Unless said, arrays go to the default device.
        prefetch: how many batches are placed ahead; 0 places each when it is asked for.

    Raises:
        ImportError: JAX is not installed.

    Example:
        >>> import splitpipe as sp
        >>> with sp.Pipeline(range(6)).batch(2).loader(executor="inline") as loader:
        ...     [float(batch.mean()) for batch in to_jax(loader)]
        [0.5, 2.5, 4.5]
    """
    if prefetch < 0:
        raise FormatError(f"prefetch must be from 0 on, not {prefetch}")
    return JaxBatches(
        batches, _Placing(imported("jax", extra="jax", by="to_jax"), sharding), prefetch
    )


class JaxBatches:
    """An iterator over batches of ``jax.Array``; made by `to_jax`.

    It owns the loader that it reads: closing it closes that one.
    """

    def __init__(self, batches: Iterable[Any], place: Callable[[Any], Any], prefetch: int) -> None:
        self._batches = batches
        self._states: States | None = getattr(batches, "state_dict", None)
        self._ahead = Ahead(place, prefetch, self._states)
        self._source = iter(batches)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._ahead.next_of(self._source)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader was when the last batch was handed out; see `Loader.state_dict`.

        Raises:
            PipelineError: what it reads keeps no state.
        """
        if self._states is None:
            raise PipelineError(f"{self._batches!r} keeps no state: give to_jax a loader")
        state = self._ahead.state()
        return dict(self._states() if state is None else state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; see `Loader.load_state_dict`."""
        if self._states is None:
            raise PipelineError(f"{self._batches!r} keeps no state: give to_jax a loader")
        self._ahead.clear()
        self._batches.load_state_dict(state)  # type: ignore[attr-defined]
        self._source = iter(self._batches)

    def close(self) -> None:
        """Close the loader and let go of what was placed ahead. Safe to call twice."""
        self._source = iter(())
        self._ahead.clear()
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"JaxBatches({self._batches!r}, {len(self._ahead)} ahead)"


class _Placing:
    """Places the arrays of a batch."""

    def __init__(self, jax: Any, sharding: Sharding | None) -> None:
        self._jax = jax
        self._sharding = sharding
        self._fixed = sharding is None or hasattr(sharding, "shard_shape")

    def __call__(self, batch: Any) -> Any:
        kind = type(batch)
        if kind is np.ndarray:
            return self._placed(batch)
        if kind is dict:  # JAX's own way through a dict would sort its keys
            return {key: self(value) for key, value in batch.items()}
        if kind is list or kind is tuple:
            return kind(map(self, batch))
        return self._jax.tree_util.tree_map(self._placed, batch)

    def _placed(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or not self._is_known(value.dtype):
            return value
        array = self._fitting(value)
        if self._sharding is None:
            return self._jax.device_put(array)
        sharding: Any = self._sharding if self._fixed else self._sharding(array)  # type: ignore[operator]
        try:
            return self._jax.make_array_from_process_local_data(sharding, array)
        except ValueError as error:
            raise FormatError(
                f"an array of shape {array.shape} cannot lie on devices as {sharding}: {error}; a "
                "last batch that is smaller is left out by batch(..., drop_last=True)"
            ) from error

    def _is_known(self, dtype: np.dtype[Any]) -> bool:
        # bfloat16 and its like are of kind V to numpy, and have a name of their own.
        return dtype.kind in _KINDS or (
            dtype.kind == "V" and not dtype.names and dtype.isbuiltin == 2
        )

    def _fitting(self, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if not value.dtype.isnative:
            value = value.astype(value.dtype.newbyteorder("="))
        kept = self._jax.dtypes.canonicalize_dtype(value.dtype)
        if value.dtype.kind in "iu" and kept != value.dtype and value.size:
            limits = np.iinfo(kept)
            low, high = int(value.min()), int(value.max())
            if low < limits.min or high > limits.max:
                raise FormatError(
                    f"{low if low < limits.min else high} does not fit {kept}, which JAX makes of "
                    f"{value.dtype}: say jax.config.update('jax_enable_x64', True), or make "
                    "another type of it"
                )
        return value
