"""The bucket, the tables and the other server of docs/raw.md."""

import io
import os

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import splitpipe as sp  # noqa: F401  the page takes it for granted
from tests.docs.standins import a_file_server, a_store

os.makedirs("cdn")
for n in range(70):
    Image.new("RGB", (300, 250), (n, n, n)).save(f"cdn/{n}.png")
    with open(f"cdn/{n}.txt", "w") as file:
        file.write(f"picture {n}")
cdn = a_file_server("cdn")
store = a_store("bucket")
table = io.BytesIO()
urls = [f"{cdn}/{n}" for n in range(70)]
columns = {"image_url": [f"{u}.png" for u in urls], "caption_url": [f"{u}.txt" for u in urls]}
pq.write_table(pa.table(columns), table)
store.put("bucket/tables/one.parquet", table.getvalue())


def translated(code):
    code = code.replace("https://cdn.example.com", cdn)
    return code.replace("/fast/cache", os.path.abspath("fast"))


def done():
    with pipe.loader(executor="inline") as loader:
        batch = next(loader)
    assert batch["image"].shape == (64, 224, 224, 3)
    assert batch["caption"][5].startswith("picture ")
    ds.close()
