"""A model of scikit-learn, trained on data that does not fit into memory.

Writes a table of pandas into a dataset, reads it back shuffled in batches that a worker has made
ready, and trains a classifier by ``partial_fit``, stopped in the middle and gone on with at the
exact batch.

Run it: ``python examples/sklearn_partial_fit.py``. It needs scikit-learn and
``pip install 'splitpipe[pandas]'``.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import splitpipe as sp

RECORDS = 20_000
BATCH = 200


def write(path: Path) -> None:
    """Two clouds of points in eight dimensions, as a table, into bins."""
    pd: Any = import_module("pandas")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, RECORDS)
    points = rng.normal(size=(RECORDS, 8)) + labels[:, None] * 0.9
    table = pd.DataFrame({f"x{axis}": points[:, axis] for axis in range(8)} | {"label": labels})
    report = sp.convert(sp.from_pandas(table), path, workers=0)
    print(f"{report.records} rows of a table are in bins, {report.compared} compared")


def features(record: dict[str, Any]) -> dict[str, Any]:
    """Runs in a worker: one array of eight numbers, and the label."""
    return {"x": np.array([record[f"x{axis}"] for axis in range(8)]), "label": record["label"]}


def main() -> None:
    """Train, stop in the middle, go on, and say how good it became."""
    linear: Any = import_module("sklearn.linear_model")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "points")
        dataset = sp.open_dataset(Path(folder) / "points")
        train, test = dataset.subset(range(16_000)), dataset.subset(range(16_000, RECORDS))
        pipe = sp.Pipeline(train, shuffle="global", seed=0).map(features, workers=1).batch(BATCH)

        model = linear.SGDClassifier(random_state=0)
        with pipe.loader() as loader:
            for _ in range(30):
                batch = next(loader)
                model.partial_fit(batch["x"], batch["label"], classes=[0, 1])
            state = loader.state_dict()
        print("stopped after 30 batches")
        with pipe.loader(state=state) as loader:
            rest = 0
            for batch in loader:
                model.partial_fit(batch["x"], batch["label"])
                rest += 1
        print(f"went on with the other {rest}")

        held = test.get_batch(range(len(test)))
        points = np.stack([held[f"x{axis}"] for axis in range(8)], axis=1)
        print(f"right in {model.score(points, held['label']):.3f} of {len(test)} cases")


# Worker processes import this file again: without this line, each would train as well.
if __name__ == "__main__":
    main()
