"""The bucket, and the samples, of docs/uploading.md."""

import splitpipe as sp
from tests.docs.standins import a_store

a_store("bucket")


def samples():
    return ((f"text {n}", n % 3) for n in range(100))


def done():
    with sp.open_dataset("s3://bucket/data") as ds:
        assert ds[99] == {"text": "text 99", "label": 0}
