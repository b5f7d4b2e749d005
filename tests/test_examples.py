"""Every program in examples/ runs from the command line, in time, and says what it should."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.programs import finished

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LIMIT_S = 240  # an example takes a few seconds; the rest is for machines that are busy

EXPECTED = {
    "convert_and_split.py": [
        r"stopped in the middle",
        r"resumed: True, proven equal: 20000 records",
        r"authors in both: 0",
    ],
    "columns_and_changes.py": [
        r"5000 records of text, ids, score",
        r"a batch: ids \(3, 16\) uint16, score 0\.0014",
        r"gathered \(64, 16\), largest id 99\d",
        r"500 scores filled in, 3 records deleted: 4997 are left",
        r"the first: score 0\.0006, 1\d\d characters",
        r"the open reader still sees 5000, its first score is None",
        r"compacted, True: True",
    ],
    "duckdb_questions.py": [
        r"east +1667 forecasts, mean error 0\.\d\d",
        r"worst: forecast-\d+, ",
    ],
    "from_data_forager.py": [
        r"300 samples, number 107 is 107",
        r"a batch of shape \(8, 8\), uint16",
        r"batches of an epoch: \{\(8, 8\)\}",
    ],
    "from_splitdataloader.py": [
        r"1000 records, the same: True",
        r"10 batches, sum 499500 of 499500",
    ],
    "from_synthefy.py": [
        r"200 samples of history, target, forecast",
        r"10 long samples with a forecast",
        r"batches: \[\(5, 100\), \(5, 100\)\]",
    ],
    "job.py": [
        r"stopped: 800 of 2000 records are done",
        r"went on at 800: 2000 read = 1600 used \+ 390 filtered \+ 10 skipped",
        r"the same files as one run by another number of workers: True",
        r"a column: 'record 1' has 8 letters",
    ],
    "mpqitr.py": [
        r"sum 8555 in .* s \(making and using overlap\)",
        r"received 0\.33\nreceived 0\.50\nreceived 1\.00\nthen ZeroDivisionError",
        r"independent runs: \[\(0, 0\), \(0, 1\), \(0, 4\), \(1, 0\)",
    ],
    "numpy_training_loop.py": [
        r"step +0  mean squared error +\d{3}\.",
        r"step +500  mean squared error +0\.0",
        r"found \[",
    ],
    "parallel_preprocessing.py": [
        r"4 worker\(s\): ",
        r"kept 2\d{3} of 3000 records",
        r"the same records in the same order: True",
    ],
    "jax_training.py": [
        r"step +0  loss +\d+\.\d+",
        r"went on at step 60",
        r"found \[ ?1\.",
    ],
    "sklearn_partial_fit.py": [
        r"20000 rows of a table are in bins, 20000 compared",
        r"went on with the other 50",
        r"right in 0\.8\d\d of 4000 cases",
    ],
    "tokenize_and_pack.py": [
        r"2000 conversations, 219698 tokens of uint16",
        r"3432 samples of 64, 50 tokens left out",
        r"a sample: tokens uint16, loss_mask uint8, document int32, local_position int32",
        r"110103 of 219648 tokens count for the loss",
    ],
    "torch_accelerate.py": [
        r"600 and then 1400 measurements",
        r"the same stream: True",
        r"the same line: True",
        r"found \[1\. 2\. 3\. 4\.\]",
    ],
    "torch_lightning.py": [
        r"600 and then 400 measurements",
        r"each once in the first epoch: True",
        r"found \[",
    ],
    "torch_ranks.py": [
        r"rank 0: 60 steps, found \[1\. 2\. 3\. 4\.\]",
        r"rank 1: 60 steps, found \[1\. 2\. 3\. 4\.\]",
        r"both ranks ended",
    ],
    "torch_trainer.py": [
        r"120 steps at one go, 70 behind the checkpoint",
        r"the same model: True",
        r"knows what follows: True",
    ],
    "torch_training.py": [
        r"stopped in epoch 1 after step 57",
        r"epoch 1 ended: loss 0\.\d+, (7|8|9|10)\d% of a batch right",
        r"the same network, to the bit: True",
    ],
    "views.py": [
        r"1371 of 2000 documents",
        r"1371 in three parts, 0 authors in two",
        r"a batch: lengths \(64,\), vectors \(64, 32\) float32",
    ],
}


NEEDS = {
    "torch_accelerate.py": "accelerate",
    "torch_lightning.py": "lightning",
    "torch_ranks.py": "torch",
    "torch_trainer.py": "transformers",
    "torch_training.py": "torch",
}
# They warn of what they do themselves, talk, and take seconds to be imported.
FRAMEWORKS = {"torch_accelerate.py", "torch_lightning.py", "torch_trainer.py"}


def test_every_example_is_expected_to_say_something() -> None:
    assert [path.name for path in EXAMPLES] == sorted(EXPECTED)


@pytest.mark.deadline(LIMIT_S + 60)
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.long] if path.name in FRAMEWORKS else [])
        for path in EXAMPLES
    ],
    ids=lambda path: path.name,
)
def test_example(path: Path, tmp_path: Path) -> None:
    if path.name in NEEDS and find_spec(NEEDS[path.name]) is None:
        pytest.skip(f"needs {NEEDS[path.name]}, which is not installed")
    warnings = "ignore" if path.name in FRAMEWORKS else "error"
    done = finished([path], tmp_path, limit_s=LIMIT_S, warnings=warnings)
    assert done.stderr == "" or path.name in FRAMEWORKS
    for pattern in EXPECTED[path.name]:
        assert re.search(pattern, done.stdout), f"{pattern!r} is not in:\n{done.stdout}"
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"
