"""Decoding in threads: work that lets the interpreter lock go while it lasts.

Rules: before the first figure every item of a run is compared with what decoding it here gives; in
the timed rounds each is counted and a byte of it read. A round starts its own threads; they have
delivered some items before the clock starts.
"""

from __future__ import annotations

import io
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from benchmarks.base import Case, Context, Metric, Metrics, WrongResult

__all__ = ["CASES", "JPEG", "ZLIB", "Decode"]

DIFFERENT = 16
"""Payloads that differ; more would only be read from colder memory."""


def _picture(number: int, size: int) -> np.ndarray[Any, Any]:
    """Something that compresses as photographs do: soft shapes and a little noise."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(2 * np.pi * (a * x + b * y)) for a, b in rng.uniform(0.5, 6, (3, 2))]
    picture = np.stack(waves, axis=-1) * 80 + 128 + rng.normal(0, 6, (size, size, 3))
    return picture.clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _payloads(kind: str, size: int) -> list[bytes]:
    pictures = [_picture(number, size) for number in range(DIFFERENT)]
    if kind == "zlib":
        return [zlib.compress(picture.tobytes()) for picture in pictures]
    from PIL import Image

    made = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


@dataclass(frozen=True, slots=True)
class Decode:
    """Item `number` decoded: an array of ``size * size * 3`` bytes. Picklable."""

    kind: str
    size: int

    def __call__(self, number: int) -> np.ndarray[Any, Any]:
        payload = _payloads(self.kind, self.size)[number % DIFFERENT]
        if self.kind == "zlib":
            return np.frombuffer(zlib.decompress(payload), np.uint8)
        from PIL import Image

        with Image.open(io.BytesIO(payload)) as image:
            return np.array(image)

    def warm(self) -> None:
        """Make the payloads before anybody's clock runs."""
        _payloads(self.kind, self.size)
        self(0)


ZLIB = Decode("zlib", 256)
JPEG = Decode("jpeg", 320)


def _check(system: Any, work: Decode, context: Context, count: int) -> None:
    """Compare a run with what was to come: in its order, where the system keeps one."""
    run = system.items(work, count, workers=context.workers)
    try:
        got = [zlib.crc32(np.ascontiguousarray(item)) for item in run]
    finally:
        run.close()
    expected = [zlib.crc32(work(number)) for number in range(count)]
    right = got == expected if system.ordered else Counter(got) == Counter(expected)
    if not right:
        raise WrongResult(f"{len(got)} items came that are not the {count} that were decoded")


def _decode(system: Any, context: Context, *, work: Decode) -> Iterator[Metrics]:
    work.warm()
    warm_up = context.pick(full=64, quick=16, tiny=4)
    _check(system, work, context, context.pick(full=200, quick=64, tiny=10))
    begin = time.perf_counter()
    for number in range(20):
        work(number)
    alone = (time.perf_counter() - begin) / 20
    seconds = context.pick(full=1.5, quick=0.5, tiny=0.01)
    count = max(8, int(seconds * context.workers / alone))
    yield {"items": count, "decode_ms": alone * 1e3}
    while True:
        run = system.items(work, warm_up + count, workers=context.workers)
        try:
            items = iter(run)
            total = sum(int(next(items).flat[0]) for _ in range(warm_up))
            begin, cpu = time.perf_counter(), time.process_time()
            left = 0
            for item in items:
                total += int(item.flat[0])
                left += 1
                if left == count:
                    break
            wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
            left += sum(1 for _ in items)
        finally:
            run.close()
        if left != count or total <= 0:
            raise WrongResult(f"{left} items came, not {count}")
        yield {
            "items_s": count / wall,
            "percent": 100 * count * alone / wall,
            "cpu_ms": cpu / count * 1e3,
        }


_METRICS = (
    Metric("items_s", "items/s"),
    Metric("percent", "% of one thread alone"),
    Metric("cpu_ms", "ms CPU/item", False),
)
_SYSTEMS = ("splitpipe@2", "spdl@2", "spdl-ordered@2")
_OTHERS = ("inline", "executor@2", "splitpipe", "spdl")

CASES = (
    Case(
        "threads_zlib",
        "Threads that decompress 192 KiB each (zlib)",
        "threads",
        partial(_decode, work=ZLIB),
        _METRICS,
        "spdl@2",
        _SYSTEMS,
        _OTHERS,
    ),
    Case(
        "threads_jpeg",
        "Threads that decode a JPEG of 320 x 320 each (Pillow)",
        "threads",
        partial(_decode, work=JPEG),
        _METRICS,
        "spdl@2",
        _SYSTEMS,
        _OTHERS,
    ),
)
