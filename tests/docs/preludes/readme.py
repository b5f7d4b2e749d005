"""The bucket and the data service of README.md."""

import splitpipe as sp
from tests.docs.standins import a_folder, a_service, a_store

FILTER = '''
from splitpipe.server.modules import filter


@filter
def long_enough(sample, *, least: int = 10) -> bool:
    """Long texts."""
    return len(sample["text"]) >= least
'''

sp.write_split_data("train", [b"%d" % n for n in range(1000)])
a_folder(a_store("bucket"), "train", "bucket/train")
served, translated = a_service([FILTER])
service = sp.connect(served.url)
service.datasets.create("news")
with service.writer("news", "main") as writer:
    writer.write_many({"text": "word " * (n % 8)} for n in range(200))

decode = int
batches = []
step = batches.append


def done():
    loader.close()
    assert sum(len(batch["text"]) for batch in batches) == 150
    assert next(iter(pipe)).shape == (64,)
