"""What the page about Lavender Data shows as *before* runs with Lavender Data itself."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

import pytest

from tests.docs.reading import DOCS, ROOT, blocks_of

PYTHON = os.environ.get("LAVENDER_PYTHON")
LIMIT_S = 300

# Run by the Python that has lavender-data: FOLDER, which has the data, the filter and the client.
PROGRAM = """
import os, signal, subprocess, sys, time
sys.path.insert(0, sys.argv[2])
from benchmarks.serving.lavender import free_port

folder, port = sys.argv[1], free_port()
environment = {
    **os.environ, "HOME": folder, "LAVENDER_DATA_HOST": "127.0.0.1",
    "LAVENDER_DATA_PORT": str(port), "LAVENDER_DATA_DISABLE_UI": "true",
    "LAVENDER_DATA_DISABLE_AUTH": "true", "LAVENDER_DATA_DB_URL": f"sqlite:///{folder}/state.db",
    "LAVENDER_DATA_MODULES_DIR": f"{folder}/modules",
}
command = [sys.executable, "-m", "lavender_data.server", "run", "--init"]
log = open(f"{folder}/server.log", "wb")
server = subprocess.Popen(
    command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder
)
try:
    import lavender_data.client as lavender

    def until(what):
        for _ in range(600):
            try:
                if what():
                    return
            except Exception:
                pass
            time.sleep(0.2)
        raise TimeoutError(open(f"{folder}/server.log").read()[-3000:])

    def found(dataset):
        sets = lavender.get_client().get_dataset(dataset.id).shardsets
        one = lavender.get_client().get_shardset(dataset.id, sets[0].id)
        return getattr(one, "total_samples", 0)

    url = f"http://127.0.0.1:{port}"
    until(lambda: lavender.init(api_url=url).get_version())
    code = open(f"{folder}/client.py").read().replace("http://127.0.0.1:8000", url)
    code = code.replace("/data/rows", f"{folder}/rows")
    # Its server looks for the files in the background.
    code = code.replace("\\nloader = ", "\\nuntil(lambda: found(dataset))\\nloader = ")
    batches = []
    exec(code, {"step": batches.append, "until": until, "found": found})
    print("samples", sum(len(batch["id"]) for batch in batches))
finally:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
"""


@pytest.mark.long
@pytest.mark.deadline(LIMIT_S)
@pytest.mark.skipif(PYTHON is None, reason="LAVENDER_PYTHON names no Python with lavender-data")
def test_it_delivers_what_the_page_says(tmp_path: Path) -> None:
    """``LAVENDER_PYTHON=... python -m pytest -m long tests/docs/test_lavender_before.py``."""
    blocks = [block.code for block in blocks_of(DOCS / "migrating" / "from-lavender-data.md")]
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "filters.py").write_text(blocks[0], encoding="utf-8")
    (tmp_path / "client.py").write_text(blocks[2], encoding="utf-8")
    (tmp_path / "rows").mkdir()
    with (tmp_path / "rows" / "shard.00000.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([n, "word " * (1 + n % 8)] for n in range(200))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [str(PYTHON), str(program), str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "server.log").read_text()[-4000:]
    # Texts of two words and more have ten letters. Its last batch may not come.
    samples = int(done.stdout.split()[-1])
    assert 150 <= samples <= 175
