"""The bucket, and the server of files, of docs/streaming.md."""

import os

import splitpipe as sp
from tests.docs.standins import a_file_server, a_folder, a_store

sp.write_split_data("train", [b"%d" % n for n in range(1000)])
store = a_store("bucket")
a_folder(store, "train", "bucket/train")
files = a_file_server(".")

left_out = {
    'ds = sp.open_dataset("hf://datasets/me/data/train")': "needs a repository of Hugging Face"
}


def translated(code):
    code = code.replace("/scratch/cache", os.path.abspath("scratch"))
    code = code.replace("https://minio.example:9000", store.url).replace(
        "https://data.example", files
    )
    return code + "\nassert len(ds) == len(ds[:]) == 1000\nds.close()\n"
