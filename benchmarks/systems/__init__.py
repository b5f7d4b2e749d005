"""The registry of systems: which adapter speaks for whom, and what it needs to be installed.

Responsible for: names, imports that decide whether a system is there, distributions whose
versions stand in the report. Rules: nothing of a system is imported until it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["SYSTEMS", "System", "adapter_of", "load", "missing", "parse"]


@dataclass(frozen=True, slots=True)
class System:
    """Where an adapter lies and how it is made.

    Attributes:
        module: Module below ``benchmarks.systems``.
        storage: Name of its storage adapter class, if it has one.
        pipeline: Name of its pipeline adapter class, if it has one.
        options: Keyword arguments of either class: the variant that a name stands for.
        requires: Modules that must be importable.
        distributions: Whose versions are reported.
        note: What a reader must know to compare.
    """

    module: str
    storage: str | None = None
    pipeline: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    note: str = ""


def _own(note: str, *, storage: str | None = None, **options: Any) -> System:
    return System(
        "splitpipe_",
        storage,
        "SplitpipePipeline",
        options,
        ("splitpipe",),
        ("splitpipe", "numpy", "pyzmq", "cloudpickle", "google-crc32c"),
        note,
    )


SYSTEMS: dict[str, System] = {
    "splitpipe": _own(
        "defaults; batches by a map that fills sp.empty", storage="SplitpipeStorage", form="empty"
    ),
    "inline": _own(
        "the same pipeline in one process", storage="InlineStorage", form="empty", executor="inline"
    ),
    "splitpipe-rows": _own("map of single rows, stacked by batch", form="rows"),
    "splitpipe-auto": _own("as splitpipe-rows, with workers=auto", form="rows", auto=True),
    "inline-rows": _own("the same in one process", form="rows", executor="inline"),
    "splitpipe-generator": _own("a free generator that fills sp.empty", form="generator"),
    "splitpipe-copy": _own("map of a function that returns its own array", form="copy"),
    "splitpipe-zmq": _own("ZeroMQ channel", transport="zmq"),
    "splitpipe-spawn": _own("spawned workers", start_method="spawn"),
    "memcpy": System("memcpy_", "MemcpyStorage", "MemcpyPipeline", note="one copy, one process"),
    "memcpy-3": System(
        "memcpy_",
        pipeline="MemcpyPipeline",
        options={"turns": 3},
        note="the same, into three buffers in turn: what a run has in use at least",
    ),
    "bare": System(
        "bare_",
        pipeline="BarePipeline",
        note="three slots of shared memory and a socket, with no promise: the bound between two "
        "processes",
    ),
    "disk": System("disk_", "DiskStorage", note="front to back in reads of 8 MiB, unparsed"),
    "tokenizer": System(
        "tokens_",
        requires=("tokenizers",),
        distributions=("tokenizers",),
        note="encode_batch of all texts at once, nothing else",
    ),
    "tokenizer-fast": System(
        "tokens_",
        requires=("tokenizers",),
        distributions=("tokenizers",),
        note="encode_batch_fast, which tells no offsets",
    ),
    "splitpipe-zstd": System(
        "compression_",
        requires=("splitpipe", "zstandard"),
        distributions=("zstandard",),
        note="every record compressed, with a dictionary",
    ),
    "zstandard": System(
        "compression_",
        requires=("zstandard",),
        distributions=("zstandard",),
        note="the compressor alone, with a dictionary; frames in a list in memory",
    ),
    "lmdb": System("lmdb_", "LmdbStorage", None, {}, ("lmdb",), ("lmdb",)),
    "sqlite": System("sqlite_", "SqliteStorage", note="blobs by rowid"),
    "splitdataloader": System(
        "splitdataloader_",
        "SplitDataLoaderStorage",
        "SplitDataLoaderPipeline",
        {},
        ("splitdataloader",),
        ("splitdataloader",),
        "bins without a checksum; MpQItr for pipelines",
    ),
    "data_forager": System(
        "data_forager_", "DataForagerStorage", None, {}, ("data_forager",), ("data-forager",)
    ),
    "datasets": System(
        "datasets_", "DatasetsStorage", None, {}, ("datasets",), ("datasets", "pyarrow")
    ),
    "arrow": System("arrow_", "ArrowStorage", None, {}, ("pyarrow",), ("pyarrow",)),
    "memmap": System(
        "memmap_", "MemmapStorage", note="numpy's gather from a map of the rows, unchecked"
    ),
    "mds": System("mds_", "MdsStorage", None, {}, ("streaming",), ("mosaicml-streaming",)),
    "litdata": System("litdata_", "LitdataStorage", None, {}, ("litdata",), ("litdata",)),
    "array_record": System(
        "array_record_", "ArrayRecordStorage", None, {}, ("array_record",), ("array_record",)
    ),
    "webdataset": System(
        "webdataset_", "WebdatasetStorage", None, {}, ("webdataset",), ("webdataset",)
    ),
    "spdl": System(
        "spdl_",
        None,
        "SpdlPipeline",
        {},
        ("spdl.pipeline",),
        ("spdl_core",),
        "iterate_in_subprocess with SharedMemorySegmentPool where there are arrays",
    ),
    "spdl-ordered": System(
        "threads_",
        requires=("spdl.pipeline",),
        distributions=("spdl_core",),
        note="threads whose results keep the order of their input",
    ),
    "executor": System("threads_", note="a ThreadPoolExecutor and a window of futures by hand"),
    "torch": System(
        "torch_", None, "TorchPipeline", {}, ("torch",), ("torch",), "DataLoader, torch tensors"
    ),
    "torchdata": System(
        "torchdata_", None, "TorchdataPipeline", {}, ("torchdata",), ("torchdata",), "nodes"
    ),
    "grain": System("grain_", None, "GrainPipeline", {}, ("grain",), ("grain",), "DataLoader"),
    "zmq": System(
        "zmq_", None, "ZmqPipeline", {}, ("zmq",), ("pyzmq",), "PUSH/PULL over ipc by hand"
    ),
    "mpqueue": System("mpqueue_", None, "MpQueuePipeline", note="multiprocessing.Queue by hand"),
    "joblib": System("joblib_", None, "JoblibPipeline", {}, ("joblib",), ("joblib",), "loky"),
    "python": System("graphs_", note="a loop as one writes it by hand, in one process"),
    "plain": System("packing_", note="consecutive batches; best fit decreasing in plain Python"),
}

THREADS = {
    "splitpipe": "SplitpipeThreads",
    "inline": "InlineThreads",
    "spdl": "SpdlThreads",
    "spdl-ordered": "SpdlThreadsOrdered",
    "executor": "ExecutorThreads",
}
# Classes of `lines_`, which indexes JSON Lines in place.
LINES = {"splitpipe": "SplitpipeLines", "data_forager": "DataForagerLines"}
# Classes of `tokens_`, which turns texts into samples of tokens.
TOKENS = {
    "splitpipe": "SplitpipeTokens",
    "inline": "InlineTokens",
    "tokenizer": "TokenizerAlone",
    "tokenizer-fast": "FastTokenizerAlone",
    "data_forager": "DataForagerTokens",
}
# Classes of `columns_`, which keeps records of three columns of numbers.
COLUMNS = {
    "splitpipe": "SplitpipeColumns",
    "lmdb": "LmdbColumns",
    "sqlite": "SqliteColumns",
    "datasets": "DatasetsColumns",
    "data_forager": "DataForagerColumns",
    "memmap": "MemmapColumns",
}
# Classes of `catalog_`, which answers questions.
CATALOG = {"splitpipe": "SplitpipeCatalog", "sqlite": "SqliteCatalog"}
# Classes of `compression_`.
COMPRESSION = {
    "splitpipe": "PlainRecords",
    "splitpipe-zstd": "SplitpipeZstd",
    "zstandard": "ZstandardAlone",
}
# Classes of `graphs_`: chains of batches, mixing, branches, random numbers.
GRAPHS = {
    "splitpipe": "SplitpipeGraphs",
    "splitpipe-zmq": "SplitpipeZmqGraphs",
    "inline": "InlineGraphs",
    "python": "PythonGraphs",
    "zmq": "ZmqGraphs",
    "mpqueue": "MpQueueGraphs",
    "torchdata": "TorchdataGraphs",
    "grain": "GrainGraphs",
}
# Classes of `packing_`, which put sequences of unequal length together.
PACKING = {
    "splitpipe": "SplitpipePacking",
    "inline": "InlinePacking",
    "plain": "PlainPacking",
}
# Kinds of cases that have a module of adapters for all systems.
KINDS = {
    "lines": ("lines_", LINES),
    "tokens": ("tokens_", TOKENS),
    "columns": ("columns_", COLUMNS),
    "catalog": ("catalog_", CATALOG),
    "compression": ("compression_", COMPRESSION),
    "graphs": ("graphs_", GRAPHS),
    "packing": ("packing_", PACKING),
    "seeing": ("seeing_", {"splitpipe": "Seeing"}),
    "threads": ("threads_", THREADS),
    "synthetic": ("synthetic_", {"splitpipe": "SyntheticDataset"}),
}


def parse(spec: str) -> tuple[str, int]:
    """``name@2`` means two workers, ``name`` one.

    >>> parse("splitpipe@2")
    ('splitpipe', 2)
    """
    name, _, workers = spec.partition("@")
    return name, int(workers or 1)


def missing(name: str) -> tuple[str, ...]:
    """Modules that a system needs and that are not installed."""
    absent = []
    for module in SYSTEMS[name].requires:
        try:
            found = find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            absent.append(module)
    return tuple(absent)


def adapter_of(name: str, kind: str) -> tuple[str, str | None]:
    """Module and class of a system's adapter of a kind; no class where it has none."""
    system = SYSTEMS[name]
    if kind in KINDS:
        module, adapters = KINDS[kind]
        return module, adapters.get(name)
    return system.module, system.storage if kind == "storage" else system.pipeline


def load(name: str, kind: str) -> Any:
    """The adapter of a system for the cases of a kind.

    Raises:
        LookupError: It has none of that kind.
    """
    module, attribute = adapter_of(name, kind)
    if attribute is None:
        raise LookupError(f"{name} has no {kind} adapter")
    adapter = getattr(import_module(f"benchmarks.systems.{module}"), attribute)
    return adapter(**(SYSTEMS[name].options if kind == "pipeline" else {}))
