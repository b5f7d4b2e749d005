"""Samples a second that lavender-data serves. Run by its own Python: imports nothing of splitpipe.

    python lavender.py FOLDER BATCH SECONDS

Starts its server in FOLDER, which has the data in ``data/``, and prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def main(folder: str, batch: int, seconds: float) -> dict[str, float]:
    port = free_port()
    os.environ["HOME"] = folder
    environment = {
        **os.environ,
        "LAVENDER_DATA_HOST": "127.0.0.1",
        "LAVENDER_DATA_PORT": str(port),
        "LAVENDER_DATA_DISABLE_UI": "true",
        "LAVENDER_DATA_DISABLE_AUTH": "true",
        "LAVENDER_DATA_DB_URL": f"sqlite:///{folder}/state.db",
    }
    command = [sys.executable, "-m", "lavender_data.server", "run", "--init"]
    with open(os.path.join(folder, "server.log"), "wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
    try:
        return measure(f"http://127.0.0.1:{port}", os.path.join(folder, "data"), batch, seconds)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def measure(url: str, location: str, batch: int, seconds: float) -> dict[str, float]:
    import lavender_data.client as lavender

    until = time.monotonic() + 60
    while True:
        try:
            client = lavender.init(api_url=url)
            client.get_version()
            break
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
    dataset = client.create_dataset("rows", "id", "file://" + location)
    while not getattr(client.get_dataset(dataset.id), "shardsets", None):
        time.sleep(0.1)
    shardset = client.get_dataset(dataset.id).shardsets[0]
    while not getattr(client.get_shardset(dataset.id, shardset.id), "total_samples", 0):
        if time.monotonic() > until:
            raise TimeoutError("the data was not found")
        time.sleep(0.2)
    loader = lavender.LavenderDataLoader(dataset_id=dataset.id, batch_size=batch, no_cache=True)
    samples, began = 0, None
    for found in loader:
        if began is None:
            began = time.monotonic()  # the first one pays for the start
            continue
        samples += len(found["id"])
        if time.monotonic() - began > seconds:
            break
    assert began is not None
    return {"samples": samples, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
