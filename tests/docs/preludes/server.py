"""The data service of docs/server.md, and the data that the page speaks of."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq

import splitpipe as sp
from tests.docs.standins import a_service, a_store

FILTER = next(code for code in BLOCKS if "@filter" in code)
EMBED = '''
import numpy as np

from splitpipe.server.modules import preprocessor


@preprocessor
def embed(batch):
    """Lengths, as a vector."""
    return {"embedding": np.array([[len(text)] * 4 for text in batch["text"]], np.float32)}
'''

pq.write_table(pa.table({"id": list(range(10)), "score": [0.5] * 10}), "scores.parquet")
store = a_store("bucket")
with open("scores.parquet", "rb") as file:
    store.put("bucket/scores/one.parquet", file.read())
with sp.DatasetWriter("news") as writer:
    writer.write_many({"id": n, "text": f"text {n}"} for n in range(10))
with open("credentials.json", "w") as file:
    os.fchmod(file.fileno(), 0o600)
    options = {"endpoint_url": store.url, "key": "k", "secret": "s"}
    json.dump({"s3://bucket/": options}, file)

here = os.getcwd()
served, at_server = a_service(
    [FILTER, EMBED],
    *("--allow-root", here, "--allow-remote", "s3://bucket/"),
    *("--storage-options", os.path.abspath("credentials.json")),
)
with sp.connect(served.url) as client:
    client.datasets.create("news")  # as the page has done by now
    client.datasets.create("pictures")
    with client.writer("pictures", "main") as writer:
        writer.write_many({"image": b"image", "label": n, "text": "some words"} for n in range(100))
steps, checkpoint = [], {}
step = steps.append
jpeg = b"\xff\xd8\xff"
rows = [{"id": 8, "image": jpeg}, {"id": 9, "image": jpeg}]


def translated(code):
    code = at_server(code)
    if "client.datasets.create" in code:  # the page makes up these names again and again
        code = code.replace('"news"', '"joined"').replace('"pictures"', '"more"')
    return code.replace("/data/news", os.path.join(here, "news"))


def done():
    assert sum(len(batch["label"]) for batch in steps) > 500
    assert checkpoint["data"]
    assert client.tasks.get(task["id"])["status"] == "done"
    loader.close()
