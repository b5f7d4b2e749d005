"""The exceptions of splitpipe, drawn as one tree.

Responsible for: every error that splitpipe itself raises. Foreign exceptions are
translated into one of these once, at the place where they enter; exceptions of the
user's own code are never translated, they travel as they are.

Rules:
- a message says what happened, where, and what to try;
- an error that crosses a process boundary survives pickling with its message and notes;
- nothing here imports anything of splitpipe.

    SplitpipeError
      FormatError (ValueError)      CorruptRecord, UnsupportedVersion
      StorageError (OSError)        LockedError, RemoteError, CacheFull, DatasetChanged
      GraphError (ValueError)       CycleError, NotPicklable
      ChannelError                  ClosedChannel, BrokenChannel
      PipelineError                 StageFailed, WorkerDied, WorkerStalled, PoisonRecord,
                                    BranchStalled, BudgetExceeded
      ResumeError
      ServiceError                  WireError (ValueError), InvalidRequest (ValueError), NotAllowed,
                                    NotFound (LookupError), Conflict, Unavailable
"""

from __future__ import annotations

__all__ = [
    "BranchStalled",
    "BrokenChannel",
    "BudgetExceeded",
    "CacheFull",
    "ChannelError",
    "ClosedChannel",
    "Conflict",
    "CorruptRecord",
    "CycleError",
    "DatasetChanged",
    "FormatError",
    "GraphError",
    "InvalidRequest",
    "LockedError",
    "NotAllowed",
    "NotFound",
    "NotPicklable",
    "PipelineError",
    "PoisonRecord",
    "RemoteError",
    "ResumeError",
    "ServiceError",
    "SplitpipeError",
    "StageFailed",
    "StorageError",
    "Unavailable",
    "UnsupportedVersion",
    "WireError",
    "WorkerDied",
    "WorkerStalled",
]


class SplitpipeError(Exception):
    """Root of every error that splitpipe raises by itself."""


class FormatError(SplitpipeError, ValueError):
    """Stored bytes are not what the format says they must be."""


class CorruptRecord(FormatError):
    """A record, or the index entry that leads to it, failed its checksum or its bounds."""


class UnsupportedVersion(FormatError):
    """The data was written by a newer splitpipe than this one."""


class StorageError(SplitpipeError, OSError):
    """The file system, or what stands in for it, did not do what was asked."""


class LockedError(StorageError):
    """Another writer holds the dataset."""


class RemoteError(StorageError):
    """A remote store failed, after the retries that were allowed.

    Attributes:
        transient: whether the same request may succeed a little later.
        maybe_done: whether what was asked may have been done, and only its answer was lost.
        retry_after_s: how long the server asks to wait before, in seconds, if it said so.
    """

    transient: bool = False
    maybe_done: bool = False
    retry_after_s: float | None = None


class DatasetChanged(StorageError):
    """What is being read was replaced, or removed, by somebody else meanwhile."""


class CacheFull(StorageError):
    """A cache cannot make room without removing what is in use."""


class GraphError(SplitpipeError, ValueError):
    """A pipeline was described in a way that cannot be run."""


class CycleError(GraphError):
    """A pipeline feeds itself."""


class NotPicklable(GraphError):
    """Something that has to travel to another process cannot be pickled."""


class ChannelError(SplitpipeError):
    """A message could not be moved."""


class ClosedChannel(ChannelError):
    """The channel was closed on this side."""


class BrokenChannel(ChannelError):
    """The channel was closed, or broken, by the other side."""


class PipelineError(SplitpipeError):
    """A running pipeline failed."""


class StageFailed(PipelineError):
    """A stage raised something that cannot be raised again as it was."""


class WorkerDied(PipelineError):
    """A worker process ended without having been asked to."""


class BranchStalled(PipelineError):
    """A branch of a graph is not read while another one goes on."""


class BudgetExceeded(PipelineError):
    """More items failed than the ``on_error`` of their stage lets it leave out."""


class WorkerStalled(PipelineError):
    """A worker made no progress within its deadline."""


class PoisonRecord(PipelineError):
    """One record kills every worker that is given it."""


class ResumeError(SplitpipeError):
    """A saved state does not fit the pipeline it is loaded into."""


class ServiceError(SplitpipeError):
    """The data service did not do what was asked, or could not be asked."""


class WireError(ServiceError, ValueError):
    """A value cannot travel, or what arrived is not what the wire format says it must be."""


class InvalidRequest(ServiceError, ValueError):
    """What was asked of the service means nothing: a wrong name, type or bound."""


class NotAllowed(ServiceError):
    """The service does not know the token, or this is not allowed: to its role, or to anybody."""


class NotFound(ServiceError, LookupError):
    """The service has nothing of this name."""


class Conflict(ServiceError):
    """What was asked contradicts what the service already has."""


class Unavailable(ServiceError):
    """The service could not be reached for as long as was allowed."""
