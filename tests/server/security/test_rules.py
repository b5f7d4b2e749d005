"""Names, origins, rates, keys, exposure, and the server's folder."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from splitpipe.errors import (
    FormatError,
    LockedError,
    SplitpipeError,
    StorageError,
    UnsupportedVersion,
)
from splitpipe.server.security import (
    HostRules,
    Rates,
    is_loopback,
    load_keys,
    make_keys,
    refuse_exposure,
)
from splitpipe.server.settings import Settings, open_root


class TestNames:
    @pytest.mark.parametrize(
        "host",
        ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000", "[::1]", "data.example:1"],
    )
    def test_known(self, host: str) -> None:
        assert HostRules("127.0.0.1", ["data.example"]).knows(host)

    @pytest.mark.parametrize(
        "host",
        [
            None,
            "",
            "evil.example",
            "localhost.evil.example",
            "localhost:80:80",
            "localhost:99999999",
            "localhost@evil.example",
            "0.0.0.0:8000",
            "[::1",
            "localhost/",
            "data.example.",
            "localhost\n",
        ],
    )
    def test_unknown(self, host: str | None) -> None:
        assert not HostRules("0.0.0.0", ["data.example"]).knows(host)


class TestOrigins:
    rules = HostRules("127.0.0.1")

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("http://localhost:8000", "localhost:8000"),
            ("http://LOCALHOST:8000", "localhost:8000"),
            ("http://localhost", "localhost"),
            ("http://localhost:80", "localhost"),
            ("https://localhost", "localhost:443"),
            ("http://[::1]:8000", "[::1]:8000"),
        ],
    )
    def test_own_page(self, origin: str, host: str) -> None:
        assert self.rules.may_ask("POST", host=host, origin=origin, cookie=True)

    @pytest.mark.parametrize(
        "origin",
        [
            "null",
            "",
            "http://localhost:8001",
            "http://127.0.0.1:8000",
            "http://evil.example",
            "http://localhost:8000.evil.example",
            "http://localhost:8000@evil.example",
            "http://[::1",
            "localhost:8000",
        ],
    )
    def test_another_page(self, origin: str) -> None:
        assert not self.rules.may_ask("POST", host="localhost:8000", origin=origin)
        assert self.rules.may_ask("GET", host="localhost:8000", origin=origin)

    def test_a_cookie_without_an_origin(self) -> None:
        assert not self.rules.may_ask("DELETE", host="localhost", cookie=True)
        assert self.rules.may_ask("DELETE", host="localhost")

    def test_what_the_browser_says_of_the_site(self) -> None:
        own = {"host": "localhost", "origin": "http://localhost"}
        assert self.rules.may_ask("POST", **own, site="same-origin")
        assert not self.rules.may_ask("POST", **own, site="cross-site")
        assert not self.rules.may_ask("POST", **own, site="same-site")


class TestRates:
    def test_a_burst_and_then_so_many_a_second(self) -> None:
        rates = Rates(per_s=10.0, burst=3)
        assert [rates.wait_s("me", now=0.0) for _ in range(3)] == [0.0] * 3
        assert rates.wait_s("me", now=0.0) == pytest.approx(0.1)
        assert rates.wait_s("you", now=0.0) == 0.0
        assert rates.wait_s("me", now=0.1) == 0.0
        assert rates.wait_s("me", now=0.1) > 0.0
        assert [rates.wait_s("me", now=60.0) for _ in range(4)][-1] > 0.0

    def test_looking_costs_nothing(self) -> None:
        rates = Rates(per_s=1.0, burst=1)
        assert [rates.wait_s("me", now=0.0, cost=0) for _ in range(5)] == [0.0] * 5

    def test_names_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("splitpipe.server.security.rates._MOST", 5)
        rates = Rates(per_s=1.0, burst=1)
        for number in range(20):
            rates.wait_s(str(number), now=0.0)
        assert len(rates._buckets) == 5
        assert rates.wait_s("19", now=0.0) > 0.0


class TestKeys:
    def test_they_are_made_once_and_are_the_owners_alone(self, tmp_path: Path) -> None:
        folder = tmp_path / "keys"
        assert load_keys(folder) is None
        made = make_keys(folder)
        assert make_keys(folder) == load_keys(folder) == made
        assert made.secret not in repr(made)
        assert stat.S_IMODE((folder / "feed.key").stat().st_mode) == 0o600
        assert make_keys(folder, replace=True) != made
        assert [path.name for path in folder.iterdir()] == ["feed.key"]

    def test_keys_that_others_can_read_are_refused(self, tmp_path: Path) -> None:
        make_keys(tmp_path)
        (tmp_path / "feed.key").chmod(0o644)
        with pytest.raises(StorageError, match="chmod 600"):
            load_keys(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"short\nkeys\n", b"x" * 10_000])
    def test_a_file_that_is_no_pair(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "feed.key"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(FormatError, match="no pair of keys"):
            load_keys(tmp_path)


class TestExposure:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
    def test_loopback_needs_nothing(self, host: str) -> None:
        assert is_loopback(host)
        refuse_exposure(host, root=Path("r"), tokens=0, keys=False)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "data.example", ""])
    def test_all_else_needs_both(self, host: str) -> None:
        assert not is_loopback(host)
        refuse_exposure(host, root=Path("r"), tokens=1, keys=True)
        for tokens, keys in ((0, False), (1, False), (0, True)):
            with pytest.raises(SplitpipeError, match="splitpipe keys r"):
                refuse_exposure(host, root=Path("r"), tokens=tokens, keys=keys)


class TestRoot:
    def test_it_is_made_once(self, tmp_path: Path) -> None:
        root = open_root(tmp_path / "root")
        assert open_root(tmp_path / "root") == root
        assert {path.name for path in root.path.iterdir()} == {
            "server.json",
            "data",
            "keys",
            "logs",
            "modules",
            "run",
        }
        assert stat.S_IMODE(root.keys.stat().st_mode) == 0o700
        assert stat.S_IMODE(root.run.stat().st_mode) == 0o700

    def test_one_that_holds_modules_already(self, tmp_path: Path) -> None:
        (tmp_path / "modules").mkdir()
        assert open_root(tmp_path).modules == tmp_path / "modules"

    def test_one_in_which_a_server_was_killed(self, tmp_path: Path) -> None:
        (tmp_path / ".server.json.4711").write_text("{")
        assert open_root(tmp_path).modules == tmp_path / "modules"

    def test_one_that_holds_other_things(self, tmp_path: Path) -> None:
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(FormatError, match=r"holds other things \('letter.txt'\)"):
            open_root(tmp_path)

    def test_one_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot be used: Not a directory"):
            open_root(tmp_path / "file" / "root")

    def test_a_newer_one_is_refused(self, tmp_path: Path) -> None:
        marker = open_root(tmp_path).path / "server.json"
        said = json.loads(marker.read_text())
        marker.write_text(json.dumps({**said, "version": 2}))
        with pytest.raises(UnsupportedVersion, match="newer splitpipe"):
            open_root(tmp_path)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "x"}', "\x00"])
    def test_a_marker_that_is_none(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "server.json").write_text(content)
        with pytest.raises(FormatError, match="marker"):
            open_root(tmp_path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_one_that_may_not_be_written(self, tmp_path: Path) -> None:
        folder = tmp_path / "root"
        folder.mkdir(mode=0o500)
        with pytest.raises(StorageError, match="Permission denied"):
            open_root(folder)

    def test_it_has_one_server(self, tmp_path: Path) -> None:
        root = open_root(tmp_path)
        second = root.locked()
        with root.locked(), pytest.raises(LockedError, match=f"pid {os.getpid()}"):
            second.__enter__()
        with root.locked():
            pass

    def test_no_password_is_in_the_settings_repr(self, tmp_path: Path) -> None:
        settings = Settings(root=open_root(tmp_path), database_url="postgresql://me:hunter2@x/y")
        assert "hunter2" not in repr(settings)
