"""A folder that split-data-loader wrote."""

import json

import splitdataloader

records = [json.dumps({"number": n}).encode() for n in range(1000)]
splitdataloader.write_split_data("data", records, splits=16, shuffle=True)


def done():
    assert after == before == list(range(1000))
