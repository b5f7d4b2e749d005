"""A network that does everything wrong: the records are right, or an error says what was."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.order import global_order
from splitpipe.remote import plan_reading
from splitpipe.testing.faults import FaultProxy, HttpFault, chaos
from tests.remote.making import Place

Opened = Callable[..., sp.Dataset]
ROWS = 1500


def payload(number: int) -> bytes:
    return np.random.default_rng(number).bytes(4000)


@pytest.fixture
def place(in_s3: Place, tmp_path: Path) -> Place:
    path = str(tmp_path / "local")
    sp.write_split_data(path, [payload(n) for n in range(ROWS)], splits=16)
    in_s3.put(path, "data")
    return in_s3


@pytest.mark.deadline(180)
@pytest.mark.parametrize(("shuffle", "limit"), [("global", None), ("binwise", "3MB")])
def test_three_of_ten_requests_are_faulty(
    place: Place, opened: Opened, s3_proxy: FaultProxy, shuffle: str, limit: str | None
) -> None:
    through = Place(place.root, place.server.options_at(s3_proxy.url))
    dataset = opened(through, "data", cache_limit=limit)
    s3_proxy.inject(*chaos(0.3, stall_s=0.3, nbytes_per_s=1e6), seed=1)
    pipe = sp.Pipeline(dataset, shuffle=shuffle, seed=2).map(bytes, workers=2)
    with pipe.loader(epochs=2) as loader:
        found = [sorted(map(bytes, epoch)) for epoch in loader.by_epoch()]
    assert found == 2 * [sorted(payload(n) for n in range(ROWS))]
    assert s3_proxy.statistics().faults


@pytest.mark.deadline(120)
def test_records_that_are_not_kept(place: Place, opened: Opened, s3_proxy: FaultProxy) -> None:
    through = Place(place.root, place.server.options_at(s3_proxy.url))
    dataset = opened(through, "data", cache_limit="3MB")
    order = global_order(ROWS, seed=2, epoch=0)
    assert plan_reading(dataset.records.manifest, "global", cache_limit=3_000_000).how == "pick"
    s3_proxy.inject(*chaos(0.3, stall_s=0.3, nbytes_per_s=1e6), seed=1)
    rows = order.indices(100, 300).tolist()
    assert list(dataset.iterate(order, 100, 300)) == [payload(row) for row in rows]
    # What hangs is not waited for when all is closed; it ends by itself, when it is given up.
    s3_proxy.inject()
    dataset.close()
    for thread in threading.enumerate():
        if thread.name.startswith("splitpipe-cache"):
            thread.join(120)


@pytest.mark.deadline(120)
def test_no_permission_for_one_object(place: Place, opened: Opened, s3_proxy: FaultProxy) -> None:
    through = Place(place.root, place.server.options_at(s3_proxy.url))
    dataset = opened(through, "data", cache_limit="3MB")
    s3_proxy.inject(HttpFault(kind="status", status=403, target="b00003"))
    with pytest.raises(sp.StorageError) as raised:
        list(dataset)
    assert raised.value.errno == errno.EACCES
    assert "b00003" in str(raised.value)
