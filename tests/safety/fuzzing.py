"""Changing what is stored so that it still looks right.

A mutation of a JSON document keeps it valid JSON and changes what it says; a mutation of an index
changes its entries. Both are sealed again with a right checksum, as nobody but an enemy would.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np

from splitpipe.storage.format import (
    ENTRY_DTYPE,
    FILE_HEADER_NBYTES,
    RUN_RECORDS,
    index_seed,
    place,
)

__all__ = ["entries_changed", "mutated", "sealed", "unsealed", "with_other_index"]

NUMBERS = (0, 1, -1, 2, 63, 64, 65, 255, 65_535, 65_536, 1 << 24, (1 << 24) + 1, (1 << 31) - 1)
NUMBERS += (1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 48, (1 << 48) + 1, (1 << 62))
NUMBERS += ((1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 10**30, -(1 << 63))
OTHERS = (None, True, False, 0.0, 1.5, 1e308, float("nan"), "", "x", "data", "bytes", "00" * 16)
OTHERS += ("\ud800", "0" * 5000, [], {}, [[]], [0], {"a": 1}, [1, 2, 3], "../../x", "ndarray")


def sealed(document: object) -> bytes:
    """A manifest whose checksum is right, whatever it says."""
    text = json.dumps(document, indent=1)
    head = text.removesuffix("\n}").encode()
    return head + b',\n "checksum": "%08x"\n}\n' % google_crc32c.value(head)


def unsealed(raw: bytes) -> dict[str, Any]:
    """What a manifest says, without its checksum."""
    document: dict[str, Any] = json.loads(raw)
    del document["checksum"]
    assert sealed(document) == raw
    return document


def mutated(document: Any, rng: random.Random) -> Any:
    """A copy of a JSON document in which one to three places say something else."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        if not places:
            break
        _change(*rng.choice(places), rng)
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(document) if isinstance(document, dict) else range(len(document))
    for key in keys:
        yield document, key
        if isinstance(document[key], (dict, list)):
            yield from _places(document[key])


def _change(parent: Any, key: Any, rng: random.Random) -> None:
    value = parent[key]
    action = rng.randrange(10)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), value)
    elif action == 2 and isinstance(parent, dict):
        # The value of another member, of its kind or not.
        parent[key] = json.loads(json.dumps(parent[rng.choice(list(parent))]))
    elif action == 3:
        parent[key] = rng.choice(OTHERS)
    elif action == 4 and isinstance(value, list):
        rng.shuffle(value)
    elif action == 5 and isinstance(value, str) and value:
        at = rng.randrange(len(value))
        parent[key] = value[:at] + rng.choice("0f9zg/") + value[at + 1 :]
    elif isinstance(value, int) and rng.random() < 0.5:
        parent[key] = value + rng.choice((-65, -64, -2, -1, 1, 2, 14, 24, 64))
    else:
        parent[key] = rng.choice(NUMBERS)


def entries_changed(entries: Any, rng: random.Random) -> Any:
    """Index entries of which a few say something else."""
    changed = entries.copy()
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(changed))
        name = rng.choice(ENTRY_DTYPE.names or ())
        limit = (1 << 64) - 1 if name in ("offset", "length") else (1 << 32) - 1
        action = rng.randrange(4)
        if action == 0:
            changed[at] = changed[rng.randrange(len(changed))]
        elif action == 1:
            changed[name][at] = min(limit, max(0, rng.choice(NUMBERS)))
        elif action == 2:
            # An offset and a length whose sum does not fit in 64 bits.
            changed["offset"][at] = (1 << 64) - rng.randrange(1, 2000)
            changed["length"][at] = rng.randrange(4000)
        else:
            nudged = int(changed[name][at]) + rng.choice((-14, -1, 1, 14, 1 << 20))
            changed[name][at] = min(limit, max(0, nudged))
    return changed


def with_other_index(files: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    """Change the index of a dataset of one column and one segment; seal its pages."""
    document = unsealed(files["splitpipe.json"])
    (column,) = document["columns"]
    (segment,) = column["segments"]
    raw, sums = files["v0001-c000.index"], bytearray(files["v0001-c000.sums"])
    entries = np.frombuffer(raw, dtype=ENTRY_DTYPE, offset=FILE_HEADER_NBYTES)
    changed = entries_changed(entries, rng)
    seed = index_seed(bytes.fromhex(document["dataset"]), column["number"])
    stripe_rows = segment["bins"] * RUN_RECORDS
    for stripe, first in enumerate(range(0, len(entries), stripe_rows)):
        page = changed[first : first + stripe_rows]
        crc = google_crc32c.extend(place(seed, 0, first), page.tobytes()).to_bytes(4, "little")
        if len(page) == stripe_rows:
            at = FILE_HEADER_NBYTES + stripe * 4 * (1 + segment["bins"])
            sums[at : at + 4] = crc
        else:
            segment["tail"] = crc.hex() + segment["tail"][8:]
    return {
        "v0001-c000.index": raw[:FILE_HEADER_NBYTES] + changed.tobytes(),
        "v0001-c000.sums": bytes(sums),
        "splitpipe.json": sealed(document),
    }
