"""Every pickle that splitpipe makes or reads, in one place that can be audited.

Responsible for: turning live objects into bytes and back *between processes that we started
ourselves*. Stored data never comes here.

Rules:
- what can be pickled by reference is; cloudpickle is the fallback, for lambdas, closures and
  classes of an interactive session;
- what cannot be pickled is a `NotPicklable` that names what it was, raised before any message
  leaves, and says where it was found: "the variable 'lock' that <lambda> captures".
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from splitpipe.errors import NotPicklable
from splitpipe.transport.base import Buffer
from splitpipe.transport.culprit import culprit

__all__ = ["dump", "dump_description", "dump_description_by_value", "dump_plainly", "load"]

PROTOCOL = 5


def dump(
    value: object,
    callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    again: Callable[[], None] | None = None,
) -> bytes:
    """Return the pickle of a value; `callback` is offered its large buffers (PEP 574).

    `again` is called when a first attempt failed half-way: the buffers offered so far are void.

    Raises:
        NotPicklable: neither pickle nor cloudpickle can.
    """
    try:
        return pickle.dumps(value, PROTOCOL, buffer_callback=callback)
    except Exception as first:
        if again is not None:
            again()
        try:
            import cloudpickle

            by_value: bytes = cloudpickle.dumps(value, PROTOCOL, buffer_callback=callback)
        except Exception:
            raise NotPicklable(
                f"a value of type {type(value).__qualname__} cannot travel to another process: "
                f"{type(first).__name__}: {first}{culprit(value)}"
            ) from first
        return by_value


def dump_plainly(value: object, callback: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    """As `dump`, but what pickle itself cannot do is `NotPicklable`."""
    try:
        return pickle.dumps(value, PROTOCOL, buffer_callback=callback)
    except Exception as error:
        raise NotPicklable(f"{type(value).__qualname__}: {error}") from error


def load(stream: Buffer, buffers: Iterable[Any] = ()) -> Any:
    """Return the object of a pickle that `dump` made in a process of this run."""
    return pickle.loads(stream, buffers=buffers)


def dump_description(value: object) -> bytes:
    """Return the pickle of something that describes work: functions, their arguments, a source.

    By reference first: a class of the main script must be the same class in the worker, which
    pickles its instances by name. By value when the main module is one that a worker cannot import
    again. It goes through a pipe to a process of our own, so that credentials of stores may travel.
    """
    with _credentials_travel():
        try:
            blob = pickle.dumps(value, PROTOCOL)
        except Exception:
            return dump(value)
        if b"__main__" in blob and not _main_is_importable():
            return dump_by_value(value)
        return blob


def dump_description_by_value(value: object) -> bytes:
    """As `dump_description`, for a process that does not have this main script."""
    with _credentials_travel():
        return dump_by_value(value)


def _credentials_travel() -> AbstractContextManager[None]:
    """Nothing is imported for it: who has a store has imported them."""
    sealed = sys.modules.get("splitpipe.stores.sealed")
    return nullcontext() if sealed is None else sealed.travelling()


def dump_by_value(value: object) -> bytes:
    """Return a cloudpickle of `value`."""
    import cloudpickle

    try:
        blob: bytes = cloudpickle.dumps(value, PROTOCOL)
    except Exception as error:
        raise NotPicklable(
            f"{type(value).__qualname__} cannot travel to another process: {error}{culprit(value)}"
        ) from error
    return blob


def _main_is_importable() -> bool:
    """Whether a child that multiprocessing starts will find the main module (its own rule)."""
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return True
    return getattr(main, "__file__", None) is not None and not hasattr(sys, "ps1")
