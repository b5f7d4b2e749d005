"""A folder as synthefy-dataset-utils leaves it; its own package is on no registry."""

from pathlib import Path

from examples.from_synthefy import write_folder

write_folder(Path("my_dataset"), samples=200)
left_out = {
    "from synthefy_dataset_utils import ShardedDatasetReader": (
        "the original is on no registry: its reader is shown, and a folder as it writes it is read"
    )
}
