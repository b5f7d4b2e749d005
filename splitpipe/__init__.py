"""splitpipe feeds training loops and preprocessing jobs.

Three nouns: a `Dataset` stores records in bins, a `Pipeline` describes what happens to them, a
`Loader` is a running pipeline. See README.md.

The public names, nothing else. Each is imported when it is first used: a worker process, or a
program that only writes datasets, loads no more than it needs.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from splitpipe.errors import *  # noqa: F403  the tree is public as a whole
from splitpipe.errors import __all__ as _errors
from splitpipe.late import late as _late

if TYPE_CHECKING:
    from splitpipe.client.client import connect
    from splitpipe.codecs import Zstd
    from splitpipe.conversion import convert
    from splitpipe.dataset import Dataset, open_dataset
    from splitpipe.integrations.exports import ExportReport, export
    from splitpipe.integrations.tables import from_arrow, from_pandas, from_polars
    from splitpipe.jobs import Job, JobSummary, job
    from splitpipe.loader import Loader
    from splitpipe.mpqitr import MpQItr
    from splitpipe.pipeline.allocate import empty
    from splitpipe.pipeline.balancing import balance_plan
    from splitpipe.pipeline.builder import Pipeline
    from splitpipe.pipeline.joining import concat, interleave, merge, mix, run, stage, zip
    from splitpipe.pipeline.partition import imbalance
    from splitpipe.pipeline.redistribution import redistribute
    from splitpipe.pipeline.stages.failed import FailedItem
    from splitpipe.pipeline.stages.padding import Pad
    from splitpipe.pipeline.stages.policy import quarantine, retry, skip
    from splitpipe.pipeline.streams import Stream, Streams
    from splitpipe.pipeline.telling import RankStatistics
    from splitpipe.pipeline.trace_file import TraceFile
    from splitpipe.raw import RawDataset, media, open_raw
    from splitpipe.recording import Record
    from splitpipe.runtime.checkpoint import LoaderCheckpoint
    from splitpipe.runtime.diagnosis import Diagnosis
    from splitpipe.runtime.quarantine import read_quarantine
    from splitpipe.runtime.rerun import Rerun, rerun
    from splitpipe.runtime.statistics import StageStatistics, TaskStatistics
    from splitpipe.schema import Field, Schema, audio, image, ndarray, scalar, video
    from splitpipe.splitdata import SplitDataLoader, write_split_data
    from splitpipe.storage.check import check_dataset
    from splitpipe.storage.compact import compact
    from splitpipe.storage.repair import repair
    from splitpipe.storage.writer import DatasetWriter
    from splitpipe.summary import summarise
    from splitpipe.tokens import token_info, tokenize
    from splitpipe.verification import Replay, Verification, replay, verify

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "splitpipe.dataset",
    "DatasetWriter": "splitpipe.storage.writer",
    "Diagnosis": "splitpipe.runtime.diagnosis",
    "ExportReport": "splitpipe.integrations.exports",
    "FailedItem": "splitpipe.pipeline.stages.failed",
    "Field": "splitpipe.schema",
    "Job": "splitpipe.jobs",
    "JobSummary": "splitpipe.jobs",
    "Loader": "splitpipe.loader",
    "LoaderCheckpoint": "splitpipe.runtime.checkpoint",
    "MpQItr": "splitpipe.mpqitr",
    "Pad": "splitpipe.pipeline.stages.padding",
    "Pipeline": "splitpipe.running",  # the description, together with what runs it
    "RankStatistics": "splitpipe.pipeline.telling",
    "RawDataset": "splitpipe.raw",
    "Record": "splitpipe.recording",
    "Replay": "splitpipe.verification",
    "Rerun": "splitpipe.runtime.rerun",
    "Schema": "splitpipe.schema",
    "SplitDataLoader": "splitpipe.splitdata",
    "StageStatistics": "splitpipe.runtime.statistics",
    "Stream": "splitpipe.pipeline.streams",
    "Streams": "splitpipe.pipeline.streams",
    "TaskStatistics": "splitpipe.runtime.statistics",
    "Verification": "splitpipe.verification",
    "TraceFile": "splitpipe.pipeline.trace_file",
    "Zstd": "splitpipe.codecs",
    "audio": "splitpipe.schema",
    "balance_plan": "splitpipe.pipeline.balancing",
    "check_dataset": "splitpipe.storage.check",
    "compact": "splitpipe.storage.compact",
    "concat": "splitpipe.pipeline.joining",
    "connect": "splitpipe.client.client",
    "convert": "splitpipe.conversion",
    "empty": "splitpipe.pipeline.allocate",
    "export": "splitpipe.integrations.exports",
    "from_arrow": "splitpipe.integrations.tables",
    "from_pandas": "splitpipe.integrations.tables",
    "from_polars": "splitpipe.integrations.tables",
    "image": "splitpipe.schema",
    "imbalance": "splitpipe.pipeline.partition",
    "interleave": "splitpipe.pipeline.joining",
    "job": "splitpipe.jobs",
    "merge": "splitpipe.pipeline.joining",
    "mix": "splitpipe.pipeline.joining",
    "ndarray": "splitpipe.schema",
    "media": "splitpipe.raw",
    "open_dataset": "splitpipe.dataset",
    "open_raw": "splitpipe.raw",
    "redistribute": "splitpipe.pipeline.redistribution",
    "quarantine": "splitpipe.pipeline.stages.policy",
    "read_quarantine": "splitpipe.runtime.quarantine",
    "repair": "splitpipe.storage.repair",
    "replay": "splitpipe.verification",
    "rerun": "splitpipe.runtime.rerun",
    "retry": "splitpipe.pipeline.stages.policy",
    "run": "splitpipe.pipeline.joining",
    "scalar": "splitpipe.schema",
    "skip": "splitpipe.pipeline.stages.policy",
    "stage": "splitpipe.pipeline.joining",
    "summarise": "splitpipe.summary",
    "token_info": "splitpipe.tokens",
    "tokenize": "splitpipe.tokens",
    "verify": "splitpipe.verification",
    "video": "splitpipe.schema",
    "write_split_data": "splitpipe.splitdata",
    "zip": "splitpipe.pipeline.joining",
}

__all__ = [  # noqa: PLE0604  names of the error tree are strings too
    "TaskStatistics",
    "StageStatistics",
    "Stream",
    "Streams",
    "Diagnosis",
    "Dataset",
    "DatasetWriter",
    "ExportReport",
    "FailedItem",
    "Field",
    "Job",
    "JobSummary",
    "Loader",
    "LoaderCheckpoint",
    "MpQItr",
    "Pad",
    "Pipeline",
    "RankStatistics",
    "RawDataset",
    "Record",
    "Replay",
    "Rerun",
    "Schema",
    "SplitDataLoader",
    "Verification",
    "TraceFile",
    "Zstd",
    "audio",
    "balance_plan",
    "check_dataset",
    "compact",
    "concat",
    "connect",
    "convert",
    "empty",
    "export",
    "from_arrow",
    "from_pandas",
    "from_polars",
    "image",
    "imbalance",
    "job",
    "media",
    "ndarray",
    "open_dataset",
    "open_raw",
    "redistribute",
    "quarantine",
    "read_quarantine",
    "repair",
    "replay",
    "rerun",
    "retry",
    "scalar",
    "skip",
    "summarise",
    "token_info",
    "tokenize",
    "verify",
    "video",
    "interleave",
    "merge",
    "mix",
    "run",
    "stage",
    "zip",
    "write_split_data",
    *_errors,
]


_of_home = _late(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name == "integrations":  # a room whose modules are for its users to name
        return _import_module("splitpipe.integrations")
    return _of_home(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
