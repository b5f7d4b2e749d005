"""Our data service over CSV files. What Lavender Data does runs in an environment of its own."""

import csv
import os

from tests.docs.standins import a_service

os.makedirs("data/rows")
with open("data/rows/shard.00000.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["id", "text"])
    writer.writerows([n, "word " * (n % 8)] for n in range(200))

ours = next(code for code in BLOCKS if "@filter" in code)
served, at_server = a_service([ours], "--allow-root", os.path.abspath("data"))
OTHERS = "needs lavender-data: see test_lavender_before"
left_out = {
    "from lavender_data.server import Filter": OTHERS,
    "import lavender_data.client as lavender": OTHERS,
}
batches = []
step = batches.append


def translated(code):
    return at_server(code).replace("/data/rows", os.path.abspath("data/rows"))


def done():
    assert sum(len(batch["id"]) for batch in batches) == 150
    client.close()
