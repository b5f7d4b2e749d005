"""Batches for PyTorch, and records for its own `DataLoader`.

Responsible for: the names that users of torch import. Needs the extra ``torch``.

| you have | you take |
|---|---|
| a training loop | `Loader.to_torch`: tensors over shared memory, or on a GPU |
| a framework that wants a `DataLoader` (Lightning, Trainer, Accelerate) | `EpochLoader` |
| a `DataLoader` that is to stay | `MapDataset`, `IterableDataset` |
| arrays | `tensors` |
| items that hold tensors | `collate` |

Rules:
- torch is imported when this package is, and by nothing else of the project.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError(
        "tensors need PyTorch, which is not installed here: pip install torch, or "
        "pip install 'splitpipe[torch]'"
    )

from splitpipe.integrations.torch.datasets import IterableDataset, MapDataset
from splitpipe.integrations.torch.epochs import EpochLoader
from splitpipe.integrations.torch.loader import TorchLoader
from splitpipe.integrations.torch.tensors import collate, tensors

__all__ = ["EpochLoader", "IterableDataset", "MapDataset", "TorchLoader", "collate", "tensors"]
