"""Any order of calls, against a model: what is read is right, and no call breaks what is noted."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings, strategies
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from splitpipe.cache import BlockCache, CachedFile, Token
from splitpipe.cache import account as account_module
from splitpipe.errors import CacheFull, RemoteError
from tests.cache.sources import CountingStore, noise

BLOCK = 1 << 15
LIMIT = 1 << 20
SIZE = 40 * BLOCK + 1234
KEYS = ("a", "b", "c")

ranges = strategies.lists(
    strategies.tuples(strategies.integers(0, SIZE - 1), strategies.integers(1, 5 * BLOCK)).map(
        lambda pair: (pair[0], min(SIZE, pair[0] + pair[1]))
    ),
    min_size=1,
    max_size=4,
)


class CacheMachine(RuleBasedStateMachine):
    """Two sessions on one folder, three objects, a limit of a quarter of them."""

    tokens: Bundle[Any] = Bundle("tokens")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="splitpipe-cache-model-"))
        self.store = CountingStore()
        self.data = {key: noise(SIZE, i) for i, key in enumerate(KEYS)}
        for key, data in self.data.items():
            self.store.write(key, data)
        self.caches = [self.opened(), self.opened()]
        self.files: dict[tuple[int, str], tuple[CachedFile, mmap.mmap]] = {}

    def opened(self) -> BlockCache:
        return BlockCache(self.folder, LIMIT, requests=1)

    def file(self, session: int, key: str) -> tuple[CachedFile, mmap.mmap]:
        found = self.files.get((session, key))
        if found is None:
            file = self.caches[session].open(self.store, key, block_nbytes=BLOCK)
            with open(file.path, "rb") as local:
                found = file, mmap.mmap(local.fileno(), 0, prot=mmap.PROT_READ)
            self.files[session, key] = found
        return found

    sessions = strategies.integers(0, 1)
    keys = strategies.sampled_from(KEYS)

    @rule(target=tokens, session=sessions, key=keys, wanted=ranges)
    def ensure(self, session: int, key: str, wanted: list[tuple[int, int]]) -> Any:
        file, mapped = self.file(session, key)
        try:
            token = file.ensure(wanted, extent_nbytes=4 * BLOCK)
        except CacheFull:
            return multiple()
        copies = [(key, start, mapped[start:stop]) for start, stop in wanted]
        assert token.still_valid()
        for _, start, copy in copies:
            assert copy == self.data[key][start : start + len(copy)]
        return token, session, key, wanted

    @rule(seen=consumes(tokens))
    def look_again(self, seen: tuple[Token, int, str, list[tuple[int, int]]]) -> None:
        """A token that still holds after any time says that the bytes are there."""
        token, session, key, wanted = seen
        if (session, key) in self.files and token.still_valid():
            mapped = self.files[session, key][1]
            for start, stop in wanted:
                assert mapped[start:stop] == self.data[key][start:stop]

    @rule(session=sessions, key=keys, wanted=ranges)
    def read(self, session: int, key: str, wanted: list[tuple[int, int]]) -> None:
        file, _ = self.file(session, key)
        for start, stop in wanted:
            assert file.read(start, stop) == self.data[key][start:stop]

    @rule(session=sessions, key=keys, wanted=ranges)
    def prefetch(self, session: int, key: str, wanted: list[tuple[int, int]]) -> None:
        assert self.file(session, key)[0].prefetch(wanted).wait(20)

    @rule(session=sessions, key=keys, wanted=ranges)
    def done_with(self, session: int, key: str, wanted: list[tuple[int, int]]) -> None:
        self.file(session, key)[0].done_with(wanted)

    @rule(session=sessions, key=keys, wanted=ranges)
    def invalidate(self, session: int, key: str, wanted: list[tuple[int, int]]) -> None:
        file, _ = self.file(session, key)
        file.invalidate(wanted)
        assert not file.marks[file.blocks(wanted)].any()

    @rule(session=sessions, key=keys)
    def make_durable(self, session: int, key: str) -> None:
        self.file(session, key)[0]._opened.make_durable()

    @rule(session=sessions, key=keys, wanted=ranges)
    def fail(self, session: int, key: str, wanted: list[tuple[int, int]]) -> None:
        file, _ = self.file(session, key)
        self.store.error = RemoteError(5, "no answer", key)
        try:
            if file.missing(wanted):
                try:
                    file.ensure(wanted)
                except (RemoteError, CacheFull):
                    pass
                else:
                    raise AssertionError("nothing was raised")
        finally:
            self.store.error = None

    @rule(session=sessions, to=strategies.integers(0, LIMIT))
    def prune(self, session: int, to: int) -> None:
        self.caches[session].prune(to)
        assert self.caches[session].statistics().used_nbytes <= max(to, 4096 * len(KEYS))

    @rule(session=sessions, key=keys)
    def close_file(self, session: int, key: str) -> None:
        found = self.files.pop((session, key), None)
        if found is not None:
            found[1].close()
            found[0].close()

    @rule(session=sessions)
    def close_session(self, session: int) -> None:
        self.close(session)
        self.caches[session] = self.opened()

    def close(self, session: int) -> None:
        for key in KEYS:
            self.close_file(session, key)
        self.caches[session].close()

    @precondition(lambda self: len(self.files) < 3)
    @rule()
    def restart_the_machine(self) -> None:
        self.close(0)
        self.close(1)
        boot = account_module.this_boot
        account_module.this_boot = lambda: boot() + 1  # type: ignore[assignment]
        try:
            cache = self.opened()
            # The second one looks at the clock of this start, too.
            cache._space.account.state.boot = boot()
            cache.close()
        finally:
            account_module.this_boot = boot
        self.caches = [self.opened(), self.opened()]

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "caches"):
            return
        for cache in self.caches:
            statistics = cache.statistics()
            assert statistics.used_nbytes <= LIMIT
            assert statistics.reserved_nbytes == 0
        counted = self.caches[0]._space._recount(False)
        assert counted == self.caches[0].statistics().used_nbytes

    def teardown(self) -> None:
        if hasattr(self, "caches"):
            self.close(0)
            self.close(1)
            assert np.all([cache._closed for cache in self.caches])
            shutil.rmtree(self.folder)


TestModel = CacheMachine.TestCase
TestModel.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
