"""The dataset and the functions of docs/jobs.md."""

import splitpipe as sp

with sp.DatasetWriter("raw") as writer:
    writer.write_many({"text": f"  text {n} "} for n in range(500))


def cleaned(record):
    return {"text": record["text"].strip(), "length": len(record["text"])}


def long_enough(record):
    return record["length"] > 10


def done():
    assert clean.run(workers=0).total.read == 500
